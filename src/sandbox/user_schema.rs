//! The user types and their schema: what a profile may hold, and custom attributes that are added over HTTP.
//!
//! Both user types have the same schema here.

use serde_json::{Map, Value, json};

use super::call::RequestContext;
use super::ids::Id;
use super::org::Org;
use super::refusal::OktaRefusal;
use super::reply::{OrgReply, Stamp};
use super::settings::{Attribute, AttributeKind};

/// The most custom attributes of an org: a caller that adds ever new ones must not fill the memory.
const CUSTOM_MAX: usize = 500;

/// The name of the default type in the path of its schema.
const DEFAULT: &str = "default";

impl Org {
    pub(super) fn list_user_types(&self) -> OrgReply {
        let views = [self.user_type, self.second_user_type].map(|id| self.view_type(id));
        OrgReply::json(&views)
    }

    pub(super) fn get_user_type(&self, asked: &RequestContext<'_>) -> Result<OrgReply, OktaRefusal> {
        Ok(OrgReply::json(&self.view_type(self.type_at(&asked.ids[0])?)))
    }

    fn view_type(&self, id: Id) -> Value {
        let is_default = id == self.user_type;
        let (name, display_name) = if is_default { ("user", "User") } else { ("contractor", "Contractor") };
        let host = &self.settings.host;
        let born = Stamp(self.settings.born);
        json!({
            "id": id,
            "name": name,
            "displayName": display_name,
            "description": null,
            "default": is_default,
            "created": born,
            "lastUpdated": born,
            "createdBy": self.admin,
            "lastUpdatedBy": self.admin,
            "_links": {
                "schema": { "href": format!("{host}/api/v1/meta/schemas/user/{id}"), "rel": "schema", "name": name },
                "self": { "href": format!("{host}/api/v1/meta/types/user/{id}"), "rel": "self" },
            },
        })
    }

    fn type_at(&self, key: &str) -> Result<Id, OktaRefusal> {
        [self.user_type, self.second_user_type]
            .into_iter()
            .find(|id| id.as_str() == key || (key == DEFAULT && *id == self.user_type))
            .ok_or_else(|| OktaRefusal::missing(key, "UserType"))
    }

    pub(super) fn get_user_schema(&self, asked: &RequestContext<'_>) -> Result<OrgReply, OktaRefusal> {
        let id = self.type_at(&asked.ids[0])?;
        Ok(OrgReply::json(&self.view_schema(id)))
    }

    fn view_schema(&self, id: Id) -> Value {
        let host = &self.settings.host;
        let custom: Map<String, Value> = self
            .settings
            .user_attributes
            .iter()
            .map(|Attribute { name, kind }| {
                let mut property = json!({
                    "title": name,
                    "type": kind.as_str(),
                    "scope": "NONE",
                    "permissions": [{ "principal": "SELF", "action": "READ_ONLY" }],
                    "master": { "type": "PROFILE_MASTER" },
                });
                if *kind == AttributeKind::List {
                    property["items"] = json!({ "type": "string" });
                }
                (name.clone(), property)
            })
            .collect();
        json!({
            "id": format!("{host}/meta/schemas/user/{id}"),
            "$schema": "http://json-schema.org/draft-04/schema#",
            "name": "user",
            "title": "User",
            "type": "object",
            "lastUpdated": Stamp(self.settings.born),
            "created": Stamp(self.settings.born),
            "definitions": {
                "custom": { "id": "#custom", "type": "object", "properties": custom, "required": [] },
                "base": { "id": "#base", "type": "object", "properties": {}, "required": ["login", "email"] },
            },
            "properties": {
                "profile": { "allOf": [{ "$ref": "#/definitions/custom" }, { "$ref": "#/definitions/base" }] },
            },
        })
    }

    /// Adds custom attributes, and removes those that are given as `null`.
    pub(super) fn update_user_schema(&mut self, asked: &RequestContext<'_>) -> Result<OrgReply, OktaRefusal> {
        let id = self.type_at(&asked.ids[0])?;
        let body = asked.object(&["definitions"])?;
        let given =
            body.get("definitions").and_then(|it| it.get("custom")).and_then(|it| it.get("properties"));
        let given = given.and_then(Value::as_object).ok_or_else(OktaRefusal::malformed)?;
        let mut attributes = self.settings.user_attributes.clone();
        for (name, property) in given {
            attributes.retain(|known| known.name != *name);
            if property.is_null() {
                continue;
            }
            let kind = property.get("type").and_then(Value::as_str).and_then(AttributeKind::read);
            let kind = kind.ok_or_else(|| OktaRefusal::wrong_type(name))?;
            attributes.push(Attribute { name: name.clone(), kind });
        }
        if attributes.len() > CUSTOM_MAX {
            return Err(OktaRefusal::malformed());
        }
        self.settings.user_attributes = attributes;
        Ok(OrgReply::json(&self.view_schema(id)))
    }
}
