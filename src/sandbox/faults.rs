//! Fault injection: the next matching request fails as specified, before or after its effect.
//!
//! A fault knows only how it looks from outside. It never changes the org by itself.

use serde::Deserialize;

/// The moment at which a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum When {
    /// Before the effect: nothing was done.
    #[default]
    Before,
    /// After the effect: everything was done, and only the answer is wrong.
    After,
}

/// The failure that the caller sees instead of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trouble {
    /// A status with a matching Okta error object.
    Status(u16),
    /// A status with an error object of this code.
    Code {
        /// The status.
        status: u16,
        /// The `errorCode`.
        code: String,
    },
    /// A status with an OAuth 2.0 error, as the token endpoint answers.
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
    /// 503 E0000010: Okta accepts no writes for a while.
    ReadOnly,
    /// 403 without a body: the token lacks this scope.
    InsufficientScope(String),
}

/// An injected fault.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InjectedFault {
    /// The method to match; none matches any.
    #[serde(default)]
    pub method: Option<String>,
    /// The route template to match, such as `/api/v1/users/{userId}`; a trailing `*` matches any suffix; none matches
    /// any route.
    #[serde(default)]
    pub route: Option<String>,
    /// The number of matching requests that pass first.
    #[serde(default)]
    pub skip: u32,
    /// The number of matching requests that fail after that.
    #[serde(default = "once")]
    pub times: u32,
    /// The moment of the failure: before or after the effect.
    #[serde(default)]
    pub when: When,
    /// The failure that the caller sees.
    pub what: Trouble,
}

fn once() -> u32 {
    1
}

impl InjectedFault {
    /// Creates a fault that strikes the next request of any kind, before its effect.
    pub fn next(what: Trouble) -> Self {
        Self { method: None, route: None, skip: 0, times: 1, when: When::Before, what }
    }

    /// Restricts the fault to requests of this method and route.
    #[must_use]
    pub fn on(self, method: &str, route: &str) -> Self {
        Self { method: Some(method.to_owned()), route: Some(route.to_owned()), ..self }
    }

    /// Moves the fault after the effect.
    #[must_use]
    pub fn after_effect(self) -> Self {
        Self { when: When::After, ..self }
    }

    /// Sets the number of requests that fail, and the number skipped before them.
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

/// The pending faults, in the order of injection.
#[derive(Debug, Default)]
pub(super) struct Faults(Vec<InjectedFault>);

impl Faults {
    pub(super) fn order(&mut self, fault: InjectedFault) {
        self.0.push(fault);
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn pending(&self) -> usize {
        self.0.len()
    }

    /// Returns the fault that strikes this request. Each request is skipped by, or uses up, the first matching fault.
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
