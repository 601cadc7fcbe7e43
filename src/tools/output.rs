//! The results of subtools: Okta's own objects, passed on byte for byte, and our few objects around
//! them.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::domain::json::{Fields, to_raw};
use crate::domain::result::ErrorCode;

/// The result of a subtool.
pub trait Output: JsonSchema {
    /// True if the result is a list, which can be counted and sent in pages.
    const IS_LIST: bool = false;

    /// Returns the result as JSON, projected to the requested fields.
    fn into_raw(self, fields: &Fields) -> Box<RawValue>;

    /// Returns the continuation of this result.
    fn remaining(&self) -> Remaining {
        Remaining::Nothing
    }
}

/// The continuation of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remaining {
    /// Nothing: the result is complete, or it is the last page.
    Nothing,
    /// More pages of the same list.
    Pages,
}

/// Defines the type of an Okta object that is passed on byte for byte: `(type name, doc, [property: schema …])`.
macro_rules! okta_object {
    ($(#[$doc:meta])* $name:ident { $($property:literal: $schema:tt),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name(pub Box<RawValue>);

        impl Output for $name {
            fn into_raw(self, fields: &Fields) -> Box<RawValue> {
                fields.cut(self.0)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({
                    "type": "object",
                    "description": "as Okta sends it; `options.fields` may leave properties out",
                    "properties": { $($property: $schema),* },
                    "additionalProperties": true
                })
            }
        }
    };
}

okta_object!(
    /// A user.
    User { "id": { "type": "string" }, "status": { "type": "string" }, "profile": { "type": "object" } }
);
okta_object!(
    /// A group.
    Group { "id": { "type": "string" }, "type": { "type": "string" }, "profile": { "type": "object" } }
);
okta_object!(
    /// An application instance.
    App { "id": { "type": "string" }, "label": { "type": "string" }, "status": { "type": "string" } }
);
okta_object!(
    /// A user's assignment to an application.
    AppUser { "id": { "type": "string" }, "scope": { "type": "string" }, "status": { "type": "string" } }
);
okta_object!(
    /// A link on a user's dashboard; `appInstanceId` is the application's id.
    AppLink { "id": { "type": "string" }, "label": { "type": "string" }, "appInstanceId": { "type": "string" } }
);
okta_object!(
    /// A group's assignment to an application; its `id` is the group's.
    AppGroup { "id": { "type": "string" }, "priority": { "type": "integer" }, "profile": { "type": "object" } }
);
okta_object!(
    /// A factor of a user.
    Factor { "id": { "type": "string" }, "factorType": { "type": "string" }, "status": { "type": "string" } }
);
okta_object!(
    /// An event of the System Log.
    LogEvent { "uuid": { "type": "string" }, "eventType": { "type": "string" }, "published": { "type": "string" } }
);

/// Implements [`Output`] for our own objects: empty, or a one-time secret, which always comes whole, because
/// it cannot be read again.
macro_rules! own_object {
    ($($name:ident),*) => {$(
        impl Output for $name {
            fn into_raw(self, _: &Fields) -> Box<RawValue> {
                to_raw(&self)
            }
        }
    )*};
}
own_object!(Empty, Activation, PasswordReset);

impl Output for Expiry {
    fn into_raw(self, fields: &Fields) -> Box<RawValue> {
        match self {
            Self::User(user) => fields.cut(user),
            Self::Temporary(_) => to_raw(&self),
        }
    }
}

/// Done, and nothing to tell.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Empty {}

/// How the new user gets in; empty when Okta mails it.
#[derive(Debug, Default, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Activation {
    /// The page where the user activates the account: a one-time secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub activation_url: Option<String>,
    /// The token in that page's address: a one-time secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub activation_token: Option<String>,
    /// Whether there should be a link, and Okta gave none.
    #[serde(skip_serializing_if = "is_false")]
    #[schemars(default)]
    pub link_missing: bool,
    /// Why there is no link or no mail, and how to get one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<&'static str>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(flag: &bool) -> bool {
    !*flag
}

/// How the user sets a new password; empty when Okta mails it.
#[derive(Debug, Default, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct PasswordReset {
    /// The page where the user sets a new password: a one-time secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reset_password_url: Option<String>,
    /// Whether there should be a link, and Okta gave none.
    #[serde(skip_serializing_if = "is_false")]
    #[schemars(default)]
    pub link_missing: bool,
    /// Why there is no link, and how to get one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<&'static str>,
}

/// The user whose password expired, or the temporary password.
#[derive(Debug)]
pub enum Expiry {
    /// The user, as Okta sends it.
    User(Box<RawValue>),
    /// The temporary password: a one-time secret.
    Temporary(String),
}

impl Serialize for Expiry {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Temporary<'a> {
            temp_password: &'a str,
        }
        match self {
            Self::User(user) => user.serialize(serializer),
            Self::Temporary(password) => Temporary { temp_password: password }.serialize(serializer),
        }
    }
}

impl JsonSchema for Expiry {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Expiry".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "description": "the user as Okta sends it, or, with `temp_password: true`, only the temporary password",
            "properties": { "id": { "type": "string" }, "temp_password": { "type": "string" } },
            "additionalProperties": true
        })
    }
}

/// A list's items, and how it ended.
#[derive(Debug)]
pub struct List<T> {
    /// The items, projected to the requested fields; none if they are only counted.
    pub items: Vec<Box<RawValue>>,
    /// The number of items.
    pub count: usize,
    /// True if no item is missing.
    pub complete: bool,
    /// The cursor to continue at; `None` with `complete: false` means that Okta shows no more.
    pub next: Option<String>,
    /// The `options.max_bytes` that the first item needs, if not even that fits.
    pub needs: Option<usize>,
    /// Statuses that Okta left out.
    pub left_out: &'static [&'static str],
    /// The reason for an early end.
    pub stopped: Option<Stopped>,
    /// States if more pages follow this one.
    pub remaining: Remaining,
    /// The type of the items.
    pub of: std::marker::PhantomData<T>,
}

/// A list's early end: what was read is whole, and `next` leads on from there.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Stopped {
    /// The page that could not be read, counted from 1.
    pub page: u32,
    /// Why, as in `error.code`.
    #[schemars(with = "String")]
    pub code: ErrorCode,
    /// The same in words.
    pub message: String,
}

/// The frame of a list in JSON.
#[derive(Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Frame<'a> {
    /// The items; empty when `options.count_only` asked for their number alone.
    #[schemars(skip)]
    items: &'a [Box<RawValue>],
    /// How many items.
    count: usize,
    /// Whether nothing is missing.
    complete: bool,
    /// Where to go on: give it as `after` with the same arguments. `null` and not complete: Okta shows no more.
    next: Option<&'a str>,
    /// Only where no item fits: the least `options.max_bytes` with which the list goes on at `next`.
    #[serde(skip_serializing_if = "Option::is_none")]
    needs_max_bytes: Option<usize>,
    /// Statuses that Okta left out.
    #[serde(skip_serializing_if = "<[&str]>::is_empty")]
    #[schemars(default)]
    left_out: &'a [&'static str],
    /// Only where the list ended early: at which page, and why. What was read is here; go on at `next`.
    #[serde(skip_serializing_if = "Option::is_none")]
    stopped: Option<&'a Stopped>,
}

impl<T> List<T> {
    /// Returns the list as JSON; its items are already projected.
    pub fn to_json(&self) -> Box<RawValue> {
        to_raw(&Frame {
            items: &self.items,
            count: self.count,
            complete: self.complete,
            next: self.next.as_deref(),
            needs_max_bytes: self.needs,
            left_out: self.left_out,
            stopped: self.stopped.as_ref(),
        })
    }
}

impl<T: JsonSchema> Output for List<T> {
    const IS_LIST: bool = true;

    fn into_raw(self, _: &Fields) -> Box<RawValue> {
        self.to_json()
    }

    fn remaining(&self) -> Remaining {
        self.remaining
    }
}

impl<T: JsonSchema> JsonSchema for List<T> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("{}List", T::schema_name()).into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let item = generator.subschema_for::<T>();
        let mut schema = Frame::json_schema(generator);
        let items = serde_json::json!({ "type": "array", "items": item, "description": "the items" });
        if let Some(properties) = schema.ensure_object().get_mut("properties").and_then(|p| p.as_object_mut())
        {
            properties.insert("items".into(), items);
        }
        schema.insert("required".into(), serde_json::json!(["items", "count", "complete", "next"]));
        schema
    }
}
