//! The operations on apps: read and list. `assignments` knows their users.

use serde_json::{Value, json};

use super::app::App;
use super::call::RequestContext;
use super::expression::{CaseSensitivity, Expression, Operator};
use super::ids::Id;
use super::org::Org;
use super::pages::{self, Links, NextPage, Sizes};
use super::refusal::OktaRefusal;
use super::reply::OrgReply;

const APPS: Sizes = Sizes { default: 20, max: 200 };

/// The supported `filter` expressions on apps: one comparison.
#[derive(Debug)]
enum Filter {
    All,
    Own(Expression),
    UsedBy(Id),
    GrantedTo(Id),
    /// A user or group that does not exist, or a key that no app has.
    None,
}

impl Org {
    /// Returns the app that a path names.
    pub(super) fn app_at(&self, key: &str) -> Result<&App, OktaRefusal> {
        Id::parse(key)
            .and_then(|id| self.apps.get(id))
            .ok_or_else(|| OktaRefusal::missing(key, "AppInstance"))
    }

    pub(super) fn get_app(&self, asked: &RequestContext<'_>) -> Result<OrgReply, OktaRefusal> {
        let app = self.app_at(&asked.ids[0])?;
        let mut view = app.view(&self.settings.host, self.id);
        if let Some(expand) = asked.query("expand") {
            let user = expand.strip_prefix("user/").and_then(Id::parse).ok_or_else(malformed_expand)?;
            self.embed(&mut view, app, user, asked);
        }
        Ok(OrgReply::json(&view))
    }

    pub(super) fn list_apps(&self, asked: &RequestContext<'_>) -> Result<OrgReply, OktaRefusal> {
        let filter = self.app_filter(asked)?;
        let start = asked.query("q").map(str::to_lowercase);
        let expand = match (asked.query("expand"), &filter) {
            (None, _) => None,
            (Some(expand), Filter::UsedBy(user)) if expand.strip_prefix("user/") == Some(user.as_str()) => {
                Some(*user)
            }
            (Some(_), _) => return Err(malformed_expand()),
        };
        let limit = pages::limit(asked, APPS)?;
        let admits = |app: &App| {
            let named = start.as_ref().is_none_or(|start| {
                [&app.made_from.label, &app.made_from.name]
                    .iter()
                    .any(|text| text.to_lowercase().starts_with(start.as_str()))
            });
            named
                && match &filter {
                    Filter::All => true,
                    Filter::Own(expression) => expression.admits(app, CaseSensitivity::Sensitive),
                    Filter::UsedBy(user) => self.access(app, *user, asked.now).is_some(),
                    Filter::GrantedTo(group) => app.groups.contains_key(group),
                    Filter::None => false,
                }
        };
        let found = self.apps.seen(pages::after(asked)?, asked.now).filter(|(_, app)| admits(app));
        let (page, rest) = pages::cut(found, limit);
        let next = page.last().filter(|_| rest == NextPage::More).map(|(id, _)| id.to_string());
        let host = &self.settings.host;
        let views: Vec<Value> = page
            .into_iter()
            .map(|(_, app)| {
                let mut view = app.view(host, self.id);
                if let Some(user) = expand {
                    self.embed(&mut view, app, user, asked);
                }
                view
            })
            .collect();
        // Recorded: `useOptimization`, `includeNonDeleted` and `alwaysIncludeVpnSettings` are dropped.
        let links = Links { host, path: "/api/v1/apps", limit, kept: &["q", "filter", "expand"] };
        Ok(links.write(OrgReply::json(&views), asked, next.as_deref()))
    }

    fn app_filter(&self, asked: &RequestContext<'_>) -> Result<Filter, OktaRefusal> {
        let Some(text) = asked.query("filter") else { return Ok(Filter::All) };
        let expression = Expression::parse(text).map_err(|cause| OktaRefusal::bad_search(&cause))?;
        let Expression::Compare { attribute, operator: Operator::Equal, value } = &expression else {
            return Err(OktaRefusal::unsupported_filter("one `eq` comparison is supported"));
        };
        let id = || value.as_str().and_then(Id::parse);
        Ok(match attribute.as_str() {
            "id" | "status" | "name" => Filter::Own(expression),
            "user.id" => id().map_or(Filter::None, Filter::UsedBy),
            "group.id" => id().map_or(Filter::None, Filter::GrantedTo),
            "credentials.signing.kid" | "settings.slo.enabled" => Filter::None,
            _ => return Err(OktaRefusal::unsupported_filter(attribute)),
        })
    }

    /// Embeds a user's assignment in the JSON of an app.
    fn embed(&self, view: &mut Value, app: &App, user: Id, asked: &RequestContext<'_>) {
        if let Some(access) = self.access(app, user, asked.now) {
            view["_embedded"] = json!({ "user": access.view(app.id, &self.settings.host) });
        }
    }
}

fn malformed_expand() -> OktaRefusal {
    OktaRefusal::invalid("RequestParams", vec!["Expand query is malformed.".to_owned()])
}
