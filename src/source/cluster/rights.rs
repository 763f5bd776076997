//! What the one who asks is, and may do, in a cluster: for `configbump doctor`.

use std::collections::BTreeSet;

use kube::client::Body;
use serde_json::{Value, json};

use super::body::Documents;
use super::follow::{Failure, Trouble};
use super::report::describe;
use super::session::{SendError, Session};
use super::wire::Status;
use super::{Ask, LIST_SILENCE_MAX, Selector, Stop, Target};
use crate::event::Scope;
use crate::telemetry::Signs;

/// More than an answer about rights, or the metadata of an object, can have.
const ANSWER_BYTES_MAX: usize = 2 << 20;

/// Asks a cluster about rights.
pub struct Inquiry<'a> {
    session: &'a Session,
    targets: &'a [Target],
    announces: bool,
}

/// Who asks, as the cluster knows him.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Account {
    ServiceAccount { namespace: String, name: String },
    User(String),
}

/// What was found out about a scope.
#[derive(Debug)]
pub struct Scoped {
    pub scope: Scope,
    /// Those of `list` and `watch` that are not allowed; or why that is not known, on one line.
    pub missing: Result<Vec<&'static str>, String>,
    /// Whether there is an object in it now, if that can be told.
    pub has_objects: Option<bool>,
}

impl<'a> Inquiry<'a> {
    pub(super) fn new(session: &'a Session, targets: &'a [Target], announces: bool) -> Self {
        Self { session, targets, announces }
    }

    /// The address of the server.
    pub async fn server(&self) -> String {
        self.session.server().await.to_string()
    }

    /// Who asks.
    ///
    /// # Errors
    ///
    /// When the server does not say, on one line. It may be that only an old one does not.
    pub async fn account(&self) -> Result<Account, String> {
        let question = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
        let answer = self.ask("/apis/authentication.k8s.io/v1/selfsubjectreviews", &question).await?;
        let user = answer.pointer("/status/userInfo/username").and_then(Value::as_str).unwrap_or_default();
        let account = user.strip_prefix("system:serviceaccount:").and_then(|account| account.split_once(':'));
        Ok(match account {
            Some((namespace, name)) => {
                Account::ServiceAccount { namespace: namespace.to_owned(), name: name.to_owned() }
            }
            None => Account::User(user.to_owned()),
        })
    }

    /// What may be done in the scope of this number, of those that are to be followed; nothing if there are no more.
    pub async fn scope(&self, number: usize) -> Option<Scoped> {
        let target = self.targets.get(number)?;
        let missing = self.missing(target).await;
        let may_list = missing.as_ref().is_ok_and(Vec::is_empty);
        let has_objects = if may_list { self.has_objects(target).await } else { None };
        Some(Scoped { scope: target.scope(), missing, has_objects })
    }

    /// Whether Events may be written, if they are to be, in each namespace; `None` stands for all.
    pub async fn events(&self) -> Vec<(Option<String>, Result<Vec<&'static str>, String>)> {
        let namespaces: BTreeSet<_> = self.targets.iter().map(|target| target.namespace.clone()).collect();
        let mut rights = Vec::new();
        for namespace in namespaces.into_iter().filter(|_| self.announces) {
            let mut attributes = json!({"group": "", "resource": "events"});
            if let Some(namespace) = &namespace {
                attributes["namespace"] = json!(namespace);
            }
            let missing = self.missing_of(["create", "patch"], attributes).await;
            rights.push((namespace, missing));
        }
        rights
    }

    async fn missing(&self, target: &Target) -> Result<Vec<&'static str>, String> {
        let mut attributes = json!({"group": "", "resource": target.kind.resource()});
        if let Some(namespace) = &target.namespace {
            attributes["namespace"] = json!(namespace);
        }
        if let Selector::Name(name) = &target.selector {
            attributes["name"] = json!(name);
        }
        self.missing_of(["list", "watch"], attributes).await
    }

    async fn missing_of(&self, verbs: [&'static str; 2], mut attributes: Value) -> Result<Vec<&'static str>, String> {
        let mut missing = Vec::new();
        for verb in verbs {
            attributes["verb"] = json!(verb);
            let question = json!({
                "apiVersion": "authorization.k8s.io/v1",
                "kind": "SelfSubjectAccessReview",
                "spec": {"resourceAttributes": attributes},
            });
            let answer = self.ask("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", &question).await?;
            match answer.pointer("/status/allowed").and_then(Value::as_bool) {
                Some(true) => {}
                Some(false) => missing.push(verb),
                None => return Err("the server's answer does not say whether it is allowed".to_owned()),
            }
        }
        Ok(missing)
    }

    /// Asks for one object's metadata.
    async fn has_objects(&self, target: &Target) -> Option<bool> {
        let one = Ask::Page { objects_max: Some(1), continue_token: None };
        let answer = self.session.get_metadata(&target.path(&one, 0)).await.ok()?;
        let list = read(answer).await.ok()?;
        // A list of nothing comes as `null`.
        Some(list.get("items")?.as_array().is_some_and(|items| !items.is_empty()))
    }

    async fn ask(&self, path: &str, question: &Value) -> Result<Value, String> {
        let answer = self.session.post(path, question.to_string()).await.map_err(unsent)?;
        read(answer).await.map_err(told)
    }
}

fn unsent(error: SendError) -> String {
    told(error.into())
}

fn told(stop: Stop) -> String {
    match stop {
        Stop::Failed(failure) => describe(&failure),
        Stop::Closed => String::new(),
    }
}

/// The JSON of an answer.
pub(super) async fn read(answer: http::Response<Body>) -> Result<Value, Stop> {
    let (head, body) = answer.into_parts();
    let said = Documents::new(body, LIST_SILENCE_MAX, Signs::default()).beginning(ANSWER_BYTES_MAX).await?;
    let value = serde_json::from_slice::<Value>(&said);
    if head.status.is_success() {
        return value
            .map_err(|error| Stop::trouble(Trouble::Answer, &format!("the server's answer is no JSON: {error}")));
    }
    let text = |name| value.as_ref().ok().and_then(|value| value.get(name)?.as_str()).unwrap_or_default().to_owned();
    let status =
        Status { code: head.status.as_u16(), reason: text("reason"), message: text("message"), ..Status::default() };
    Err(Stop::Failed(Failure::Status { status, in_stream: false }))
}
