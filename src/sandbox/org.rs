//! The org itself: all its state, and the handling of a request.
//!
//! A request is counted, admitted, possibly struck by a fault, and answered; that order is Okta's and all operations
//! share it. The files named after the objects implement the operations.

use std::collections::{HashMap, HashSet};

use http::header::AUTHORIZATION;
use jiff::Timestamp;
use serde_json::json;

use crate::domain::bucket::Bucket;

use super::app::App;
use super::assignment::DirectAssignment;
use super::authorizations::{self, Authorizations, TokenState};
use super::call::{
    Cause, Handled, HttpCall, Operation, PasswordExpiry, RequestContext, Routed, Switch, Update,
};
use super::clients::Clients;
use super::effects::{ChangeKind, RecordedEffect};
use super::factor::Factor;
use super::faults::{Faults, InjectedFault, Trouble, When};
use super::group::Group;
use super::ids::{Id, Ids};
use super::lagging_index::LaggingIndex;
use super::limits::{BucketCounter, Limits, RateValues};
use super::proofs::{Proofs, ProvenCall};
use super::refusal::OktaRefusal;
use super::reply::OrgReply;
use super::settings::{OrgSettings, ProofDemand};
use super::system_log::{LogEvent, SystemLog, Target};
use super::users::{User, Users};

/// A simulated Okta org.
///
/// It has no clock: each call brings the time, and the same calls at the same times give the same answers, ids
/// included.
#[derive(Debug)]
pub struct Org {
    pub(super) settings: OrgSettings,
    pub(super) id: Id,
    /// The default user type.
    pub(super) user_type: Id,
    /// The other user type.
    pub(super) second_user_type: Id,
    pub(super) admin: Id,
    pub(super) everyone: Id,
    pub(super) ids: Ids,
    pub(super) users: Users,
    pub(super) groups: LaggingIndex<Group>,
    pub(super) members: HashMap<Id, LaggingIndex<()>>,
    pub(super) apps: LaggingIndex<App>,
    pub(super) assignments: HashMap<Id, LaggingIndex<DirectAssignment>>,
    pub(super) factors: HashMap<Id, Vec<Factor>>,
    /// Users with a session.
    pub(super) signed_in: HashSet<Id>,
    pub(super) log: SystemLog,
    /// The latest time of any call.
    pub(super) now: Timestamp,
    clients: Clients,
    pub(super) authorizations: Authorizations,
    pub(super) proofs: Proofs,
    pub(super) limits: Limits,
    pub(super) faults: Faults,
    effects: Vec<RecordedEffect>,
}

impl Org {
    /// Creates an org with a directory, as the settings say.
    pub fn new(settings: OrgSettings) -> Self {
        let mut ids = Ids::new(settings.seed);
        let lag = settings.search_lag;
        let mut org = Self {
            id: ids.mint("00o"),
            user_type: ids.mint("oty"),
            // From a generator of its own, so that a seed gives everything else the same ids as ever.
            second_user_type: Ids::new(!settings.seed).mint("oty"),
            admin: ids.mint("00u"),
            everyone: ids.mint("00g"),
            clients: Clients::default(),
            authorizations: Authorizations::default(),
            proofs: Proofs::default(),
            limits: Limits::new(&settings),
            now: settings.born,
            settings,
            ids,
            users: Users::new(lag),
            groups: LaggingIndex::new(lag),
            members: HashMap::new(),
            apps: LaggingIndex::new(lag),
            assignments: HashMap::new(),
            factors: HashMap::new(),
            signed_in: HashSet::new(),
            log: SystemLog::default(),
            faults: Faults::default(),
            effects: Vec::new(),
        };
        org.fill();
        // The directory existed before the first request, so it is no effect of a request.
        org.effects.clear();
        org.log = SystemLog::default();
        org
    }

    /// Answers a request with no other request in flight.
    pub fn answer(&mut self, call: &HttpCall, now: Timestamp) -> Handled {
        self.answer_with(call, now, 1)
    }

    /// Answers a request with this many in flight, itself included.
    pub fn answer_with(&mut self, call: &HttpCall, now: Timestamp, in_flight: usize) -> Handled {
        self.now = self.now.max(now);
        let request_id = self.ids.request();
        let (path, query) = call.target.split_once('?').unwrap_or((&call.target, ""));
        let said =
            |reply: OrgReply, rate: Option<RateValues>| Handled::Said(reply.finish(now, &request_id, rate));
        if path == authorizations::TOKEN_PATH {
            let (reply, rate) = self.token_request(call, now, in_flight);
            return reply.map_or(Handled::Lost, |reply| said(reply, Some(rate)));
        }
        if !path.starts_with("/api/v1/") {
            return said(OrgReply::html(404), None);
        }
        let (operation, route, ids) = match Routed::find(&call.method, path) {
            Routed::To { operation, route, ids } => (operation, route, ids),
            // Recorded: a 405 has no rate-limit headers.
            Routed::WrongMethod => return said(self.refuse(&OktaRefusal::wrong_method()), None),
            Routed::Nowhere => return said(self.refuse(&OktaRefusal::no_such_path()), None),
        };
        let (bucket, client) = (Bucket::of(&call.method, route), self.clients.number(&call.headers));
        if in_flight > self.settings.concurrency {
            let rate = self.limits.crowded(bucket, client, now);
            return said(self.refuse(&OktaRefusal::too_many_requests()), Some(rate));
        }
        let rate = match self.limits.take(bucket, client, now) {
            Ok(rate) => rate,
            Err(rate) => return said(self.refuse(&OktaRefusal::too_many_requests()), Some(rate)),
        };
        if let Err(reply) = self.admit(call, route, path) {
            return said(reply, Some(rate));
        }
        let asked = RequestContext {
            now,
            cause: Cause { now, request_id: &request_id, path },
            ids,
            query: RequestContext::read_query(query),
            headers: &call.headers,
            body: &call.body,
        };
        let fault = self.faults.strike(call.method.as_str(), route);
        let reply = match fault {
            None => self.perform(operation, &asked),
            Some((when, trouble)) => {
                if when == When::After {
                    let _unheard = self.perform(operation, &asked);
                }
                match self.fail(&trouble, path) {
                    Some(reply) => reply,
                    None => return Handled::Lost,
                }
            }
        };
        said(reply, Some(rate))
    }

    /// Checks the credential and that the content type is JSON.
    fn admit(&mut self, call: &HttpCall, route: &str, path: &str) -> Result<(), OrgReply> {
        let headers = &call.headers;
        let given = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let (scheme, token) = authorization(given);
        let known = ["SSWS", "Bearer", "DPoP"].iter().any(|known| scheme.eq_ignore_ascii_case(known));
        // An org with service apps accepts only the access tokens that it has issued.
        let takes_any = self.settings.clients.is_empty() || !scheme.eq_ignore_ascii_case("Bearer");
        let fits = self.settings.token.as_ref().map_or(takes_any, |wanted| wanted.expose() == token);
        match self.authorizations.standing(token, self.now) {
            TokenState::Good(issued) => {
                let [least, wider] = authorizations::needed(&call.method, route);
                let may = issued.scopes.contains(&least) || issued.scopes.contains(&wider);
                if let Some(bound_to) = issued.bound_to.clone() {
                    self.check_possession(call, path, (scheme, token), &bound_to)?;
                }
                if !may {
                    return Err(OrgReply::insufficient_scope(&self.settings.host, &least, path));
                }
            }
            TokenState::Ended => return Err(OrgReply::invalid_token(&self.settings.host)),
            TokenState::Unknown if !known || token.is_empty() || !fits => {
                return Err(self.refuse(&OktaRefusal::unauthorized()));
            }
            TokenState::Unknown => {}
        }
        // Without a body any content type is taken: Okta's own Python SDK names `application/octet-stream` then.
        let kind = headers.get(http::header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        if !call.body.is_empty()
            && kind.is_some_and(|kind| !kind.to_ascii_lowercase().starts_with("application/json"))
        {
            return Err(self.refuse(&OktaRefusal::unsupported_media()));
        }
        Ok(())
    }

    /// Checks that a token which is bound to a key comes with a proof of that key.
    fn check_possession(
        &mut self,
        call: &HttpCall,
        path: &str,
        (scheme, token): (&str, &str),
        bound_to: &str,
    ) -> Result<(), OrgReply> {
        if !scheme.eq_ignore_ascii_case("DPoP") {
            return Err(OrgReply::invalid_token(&self.settings.host));
        }
        let needs_nonce = self.settings.proof == ProofDemand::ProofWithNonce;
        let proven = ProvenCall { call, path, token: Some(token), needs_nonce };
        match self.verify_proof(&proven, self.now) {
            Ok(thumbprint) if thumbprint == bound_to => Ok(()),
            Ok(_) => Err(OrgReply::invalid_token(&self.settings.host)),
            Err(flaw) => Err(self.refuse_proof(flaw, self.now)),
        }
    }

    pub(super) fn refuse(&mut self, refusal: &OktaRefusal) -> OrgReply {
        OrgReply::refusal(refusal, &self.ids.error())
    }

    /// Returns the reply that a fault produces; `None` means no answer at all.
    pub(super) fn fail(&mut self, trouble: &Trouble, path: &str) -> Option<OrgReply> {
        Some(match trouble {
            Trouble::Lost => return None,
            Trouble::Status(status) => self.refuse(&OktaRefusal::of_status(*status)),
            Trouble::Code { status, code } => {
                self.refuse(&OktaRefusal::new(*status, code, "A scripted fault"))
            }
            Trouble::OAuth { status, error } => OrgReply::oauth(*status, error, "A scripted fault."),
            Trouble::Bare(status) => OrgReply::bare(*status),
            Trouble::Html(status) => OrgReply::html(*status),
            Trouble::ReadOnly => self.refuse(&OktaRefusal::read_only()),
            Trouble::InsufficientScope(scope) => {
                OrgReply::insufficient_scope(&self.settings.host, scope, path)
            }
        })
    }

    fn perform(&mut self, operation: Operation, asked: &RequestContext<'_>) -> OrgReply {
        let done = match operation {
            Operation::ListUsers => self.list_users(asked),
            Operation::CreateUser => self.create_user(asked),
            Operation::Me => Ok(self.show_me()),
            Operation::MyRoles => Ok(self.show_my_roles()),
            Operation::GetUser => self.get_user(asked),
            Operation::MergeUser => self.update_user(asked, Update::Merge),
            Operation::ReplaceUser => self.update_user(asked, Update::Replace),
            Operation::DeleteUser => self.delete_user(asked),
            Operation::Activate => self.activate_user(asked),
            Operation::Reactivate => self.reactivate_user(asked),
            Operation::Deactivate => self.deactivate_user(asked),
            Operation::Suspend => self.suspend_user(asked),
            Operation::Unsuspend => self.unsuspend_user(asked),
            Operation::Unlock => self.unlock_user(asked),
            Operation::ResetPassword => self.reset_password(asked),
            Operation::ExpirePassword => self.expire_password(asked, PasswordExpiry::Plain),
            Operation::ExpirePasswordWithTemp => self.expire_password(asked, PasswordExpiry::Temporary),
            Operation::UserGroups => self.list_user_groups(asked),
            Operation::AppLinks => self.app_links(asked),
            Operation::ListGroups => self.list_groups(asked),
            Operation::CreateGroup => self.create_group(asked),
            Operation::GetGroup => self.get_group(asked),
            Operation::ReplaceGroup => self.replace_group(asked),
            Operation::DeleteGroup => self.delete_group(asked),
            Operation::Members => self.list_members(asked),
            Operation::AddMember => self.add_member(asked),
            Operation::RemoveMember => self.remove_member(asked),
            Operation::ListApps => self.list_apps(asked),
            Operation::GetApp => self.get_app(asked),
            Operation::AppUsers => self.list_app_users(asked),
            Operation::Assign => self.assign(asked),
            Operation::GetAppUser => self.get_app_user(asked),
            Operation::UpdateAppUser => self.update_app_user(asked),
            Operation::Unassign => self.unassign(asked),
            Operation::AppGroups => self.list_app_groups(asked),
            Operation::GetAppGroup => self.get_app_group(asked),
            Operation::AssignGroup => self.assign_group(asked),
            Operation::UnassignGroup => self.unassign_group(asked),
            Operation::GroupApps => self.list_group_apps(asked),
            Operation::Factors => self.list_factors(asked),
            Operation::ResetFactors => self.reset_factors(asked),
            Operation::ClearSessions => self.clear_sessions(asked),
            Operation::Logs => self.list_events(asked),
            Operation::CreateApp => self.create_app_asked(asked),
            Operation::ReplaceApp => self.replace_app(asked),
            Operation::DeleteApp => self.delete_app_asked(asked),
            Operation::ActivateApp => self.turn_app_asked(asked, Switch::On),
            Operation::DeactivateApp => self.turn_app_asked(asked, Switch::Off),
            Operation::UserTypes => Ok(self.list_user_types()),
            Operation::UserType => self.get_user_type(asked),
            Operation::UserSchema => self.get_user_schema(asked),
            Operation::UpdateUserSchema => self.update_user_schema(asked),
            Operation::Org => Ok(self.show_org()),
        };
        done.unwrap_or_else(|refusal| self.refuse(&refusal))
    }

    fn show_me(&self) -> OrgReply {
        let admin = self.users.get(self.admin).expect("an org has an administrator");
        self.show_user(admin)
    }

    /// Answers a question of `okta-worker check`: the simulated credential may do everything.
    fn show_my_roles(&self) -> OrgReply {
        OrgReply::json(&json!([{
            "id": self.admin,
            "label": "Super Organization Administrator",
            "type": "SUPER_ADMIN",
            "status": "ACTIVE",
            "assignmentType": "USER",
            "created": super::reply::Stamp(self.settings.born),
            "lastUpdated": super::reply::Stamp(self.settings.born),
        }]))
    }

    fn show_org(&self) -> OrgReply {
        OrgReply::json(&json!({
            "id": self.id,
            "subdomain": "sandbox",
            "companyName": "The simulated org",
            "status": "ACTIVE",
            "website": null,
            "created": super::reply::Stamp(self.settings.born),
        }))
    }

    /// Records an effect in the ledger.
    pub(super) fn did(&mut self, cause: Cause<'_>, change: ChangeKind, subject: String) {
        self.effects.push(RecordedEffect {
            at: cause.now,
            request_id: cause.request_id.to_owned(),
            kind: change.effect(),
            subject,
        });
    }

    /// Records an effect in the ledger and the System Log.
    pub(super) fn happened(
        &mut self,
        cause: Cause<'_>,
        change: ChangeKind,
        subject: String,
        targets: Vec<Target>,
    ) {
        self.did(cause, change, subject);
        self.log.add(LogEvent {
            uuid: self.ids.uuid(),
            published: cause.now,
            change,
            request_id: cause.request_id.to_owned(),
            path: cause.path.to_owned(),
            targets,
        });
    }

    /// Records an effect on one user in the ledger and the System Log.
    pub(super) fn happened_to_user(&mut self, cause: Cause<'_>, change: ChangeKind, user: &User) {
        let target = Target::new(user.id, "User", user.text("login"), &user.display_name());
        self.happened(cause, change, user.id.to_string(), vec![target]);
    }

    /// Returns a user as the target of an event.
    pub(super) fn user_target(&self, user: Id) -> Target {
        match self.users.get(user) {
            Some(user) => Target::new(user.id, "User", user.text("login"), &user.display_name()),
            None => Target::new(user, "User", "unknown", "unknown"),
        }
    }

    /// Returns the members of a group.
    pub(super) fn members_of(&mut self, group: Id) -> &mut LaggingIndex<()> {
        let lag = self.settings.search_lag;
        self.members.entry(group).or_insert_with(|| LaggingIndex::new(lag))
    }

    /// Returns the direct assignments of an app.
    pub(super) fn assignments_of(&mut self, app: Id) -> &mut LaggingIndex<DirectAssignment> {
        let lag = self.settings.search_lag;
        self.assignments.entry(app).or_insert_with(|| LaggingIndex::new(lag))
    }

    /// Injects a fault.
    pub fn script(&mut self, fault: InjectedFault) {
        self.faults.order(fault);
    }

    /// Removes all pending faults.
    pub fn clear_faults(&mut self) {
        self.faults.clear();
    }

    /// Returns the number of pending faults.
    pub fn faults_pending(&self) -> usize {
        self.faults.pending()
    }

    /// Returns all effects, in order.
    pub fn effects(&self) -> &[RecordedEffect] {
        &self.effects
    }

    /// Returns the counts of each bucket.
    pub fn counters(&self) -> Vec<BucketCounter> {
        self.limits.counters()
    }

    /// Returns the settings of the org.
    pub fn settings(&self) -> &OrgSettings {
        &self.settings
    }
}

/// Splits an `Authorization` header into scheme and token. Okta's Python SDK sends `SSWS` and the token without a blank.
fn authorization(given: &str) -> (&str, &str) {
    match given.split_once(' ') {
        Some(parts) => parts,
        None => {
            given.split_at_checked("SSWS".len()).filter(|(scheme, _)| *scheme == "SSWS").unwrap_or_default()
        }
    }
}
