//! The operations that create, change and delete apps.
//!
//! An app of any sign-on mode can be created. All are simulated alike: nothing of their settings has an effect.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::app::{App, NewApp};
use super::call::{RequestContext, Switch};
use super::effects::ChangeKind;
use super::ids::Id;
use super::org::Org;
use super::refusal::OktaRefusal;
use super::reply::{OrgReply, Stamp};

/// The sign-on mode of an app that names none, and the catalogue's name of such an app.
const BOOKMARK: (&str, &str) = ("BOOKMARK", "bookmark");

impl Org {
    pub(super) fn create_app_asked(&mut self, asked: &RequestContext<'_>) -> Result<OrgReply, OktaRefusal> {
        let body = asked.object(&["label", "name", "signOnMode", "settings", "credentials", "visibility"])?;
        let text = |name: &str| body.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
        let label = text("label").ok_or_else(OktaRefusal::no_label)?.to_owned();
        let sign_on_mode = text("signOnMode").unwrap_or(BOOKMARK.0).to_owned();
        // Okta names an app that is not in its catalogue after the org and the label.
        let name = text("name").map(str::to_owned).unwrap_or_else(|| match sign_on_mode == BOOKMARK.0 {
            true => BOOKMARK.1.to_owned(),
            false => {
                format!("sandbox_{}_1", label.to_lowercase().replace(|c: char| !c.is_alphanumeric(), ""))
            }
        });
        let made_from = NewApp { label, name, sign_on_mode, attributes: BTreeSet::new() };
        let id = self.ids.mint("0oa");
        let mut app = App::new(id, made_from, Stamp::seconds(asked.now));
        app.is_active = asked.switch("activate", Switch::On) == Switch::On;
        app.settings = settings(&body);
        self.happened(asked.cause, ChangeKind::AppCreated, id.to_string(), vec![app.target()]);
        let reply = OrgReply::json(&app.view(&self.settings.host, self.id));
        self.apps.put(id, app, asked.now);
        Ok(reply)
    }

    pub(super) fn replace_app(&mut self, asked: &RequestContext<'_>) -> Result<OrgReply, OktaRefusal> {
        let id = self.app_at(&asked.ids[0])?.id;
        let body = asked.object(&["label", "name", "signOnMode", "settings", "credentials", "visibility"])?;
        let label = body.get("label").and_then(Value::as_str).filter(|label| !label.is_empty());
        let label = label.ok_or_else(OktaRefusal::no_label)?;
        let app = self.apps.edit(id, asked.now).expect("the app was there a moment ago");
        label.clone_into(&mut app.made_from.label);
        app.settings = settings(&body);
        app.last_updated = Stamp::seconds(asked.now);
        let (view, target) = (app.view(&self.settings.host, self.id), app.target());
        self.happened(asked.cause, ChangeKind::AppUpdated, id.to_string(), vec![target]);
        Ok(OrgReply::json(&view))
    }

    /// Activates or deactivates an app; one that is in that state already stays so.
    pub(super) fn turn_app_asked(
        &mut self,
        asked: &RequestContext<'_>,
        state: Switch,
    ) -> Result<OrgReply, OktaRefusal> {
        let app = self.app_at(&asked.ids[0])?;
        let (id, is_on) = (app.id, state == Switch::On);
        if app.is_active != is_on {
            self.turn_app(id, is_on, asked.cause);
        }
        Ok(OrgReply::done())
    }

    pub(super) fn delete_app_asked(&mut self, asked: &RequestContext<'_>) -> Result<OrgReply, OktaRefusal> {
        let app = self.app_at(&asked.ids[0])?;
        if app.is_active {
            return Err(OktaRefusal::active_app());
        }
        let (id, target): (Id, _) = (app.id, app.target());
        self.apps.remove(id, asked.now);
        self.assignments.remove(&id);
        self.happened(asked.cause, ChangeKind::AppDeleted, id.to_string(), vec![target]);
        Ok(OrgReply::empty())
    }
}

/// Returns the settings of the application itself that a body names.
fn settings(body: &Map<String, Value>) -> Option<Map<String, Value>> {
    body.get("settings")?.get("app")?.as_object().cloned()
}
