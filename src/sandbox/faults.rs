//! Faults on order: the next request that fits fails as told, before or after it had its effect.
//!
//! What a fault looks like from outside is all it knows. It never changes the org by itself.

use serde::Deserialize;

/// When a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum When {
    /// Nothing was done.
    #[default]
    Before,
    /// Everything was done, and only the answer is wrong.
    After,
}

/// What the caller sees instead of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trouble {
    /// A status with one of Okta's error objects that fits it.
    Status(u16),
    /// A status with an error object of this code.
    Code {
        /// The status.
        status: u16,
        /// The `errorCode`.
        code: String,
    },
    /// A status with an error of OAuth 2.0, as the token endpoint answers.
    #[serde(rename = "oauth")]
    OAuth {
        /// The status.
        status: u16,
        /// The `error`.
        error: String,
    },
    /// A status without a body.
    Bare(u16),
    /// A status with an HTML page, as from a proxy.
    Html(u16),
    /// The connection breaks without an answer.
    Lost,
    /// 503 E0000010: Okta takes no writes for a while.
    ReadOnly,
    /// 403 without a body: the token lacks this scope.
    InsufficientScope(String),
}

/// One fault on order.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// The method it waits for; none is any.
    #[serde(default)]
    pub method: Option<String>,
    /// The route template it waits for, such as `/api/v1/users/{userId}`; with a `*` at its end, any that
    /// begins so; none is any.
    #[serde(default)]
    pub route: Option<String>,
    /// Fitting requests that pass first.
    #[serde(default)]
    pub skip: u32,
    /// Fitting requests that fail then.
    #[serde(default = "once")]
    pub times: u32,
    /// Before or after the effect.
    #[serde(default)]
    pub when: When,
    /// What the caller sees.
    pub what: Trouble,
}

fn once() -> u32 {
    1
}

impl Fault {
    /// A fault that strikes the next request of any kind, before its effect.
    pub fn next(what: Trouble) -> Self {
        Self { method: None, route: None, skip: 0, times: 1, when: When::Before, what }
    }

    /// The same, for requests of this method and route only.
    #[must_use]
    pub fn on(self, method: &str, route: &str) -> Self {
        Self { method: Some(method.to_owned()), route: Some(route.to_owned()), ..self }
    }

    /// The same, after the effect.
    #[must_use]
    pub fn after_effect(self) -> Self {
        Self { when: When::After, ..self }
    }

    /// The same, for so many requests after skipping so many.
    #[must_use]
    pub fn times(self, times: u32, skip: u32) -> Self {
        Self { times, skip, ..self }
    }

    fn fits(&self, method: &str, route: &str) -> bool {
        self.method.as_deref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(method))
            && self.route.as_deref().is_none_or(|wanted| match wanted.strip_suffix('*') {
                Some(start) => route.starts_with(start),
                None => route == wanted,
            })
    }
}

/// All faults on order, in order.
#[derive(Debug, Default)]
pub(super) struct Faults(Vec<Fault>);

impl Faults {
    pub(super) fn order(&mut self, fault: Fault) {
        self.0.push(fault);
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn pending(&self) -> usize {
        self.0.len()
    }

    /// The fault that strikes this request. Each request passes by, or uses up, the first that fits.
    pub(super) fn strike(&mut self, method: &str, route: &str) -> Option<(When, Trouble)> {
        let at = self.0.iter().position(|fault| fault.times > 0 && fault.fits(method, route))?;
        let fault = &mut self.0[at];
        if fault.skip > 0 {
            fault.skip -= 1;
            return None;
        }
        fault.times -= 1;
        let struck = (fault.when, fault.what.clone());
        if fault.times == 0 {
            self.0.remove(at);
        }
        Some(struck)
    }
}
