//! Service accounts and what they may do.

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject};
use kube::api::{Api, ObjectMeta, PostParams};

use super::namespace::Namespace;
use super::wait::{PATIENCE, until};

/// A service account that may do nothing yet.
pub struct Account<'a> {
    home: &'a Namespace,
    object: ServiceAccount,
    name: String,
}

/// The least that a sidecar needs for these resources.
pub fn least(resources: &[&str]) -> PolicyRule {
    PolicyRule {
        api_groups: Some(vec![String::new()]),
        resources: Some(resources.iter().map(|&resource| resource.to_owned()).collect()),
        verbs: vec!["list".to_owned(), "watch".to_owned()],
        ..PolicyRule::default()
    }
}

/// The same for the objects with these names only.
pub fn least_by_name(resources: &[&str], names: &[&str]) -> PolicyRule {
    PolicyRule { resource_names: Some(names.iter().map(|&name| name.to_owned()).collect()), ..least(resources) }
}

/// What `--events` takes as well.
pub fn to_write_events() -> PolicyRule {
    let verbs = vec!["create".to_owned(), "patch".to_owned()];
    PolicyRule { verbs, ..least(&["events"]) }
}

/// A token of the account with this name, like those that kubelet puts into pods.
pub async fn token_of(accounts: &Api<ServiceAccount>, name: &str) -> String {
    let request = TokenRequest { spec: Some(TokenRequestSpec::default()), ..TokenRequest::default() };
    let answer = accounts.create_token_request(name, &PostParams::default(), &request).await;
    answer.expect("a token").status.and_then(|status| status.token).expect("a token")
}

impl<'a> Account<'a> {
    pub async fn new(home: &'a Namespace, name: &str) -> Self {
        let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
        let object = home.create(&ServiceAccount { metadata, ..ServiceAccount::default() }).await;
        Self { home, object, name: name.to_owned() }
    }

    /// Deletes the account, which makes its tokens worthless.
    pub async fn delete(self) {
        self.home.delete(&self.object).await;
    }

    /// A token like those that kubelet puts into pods.
    pub async fn token(&self) -> String {
        token_of(&self.home.api(), &self.name).await
    }

    /// Lets the account do this in that namespace, and waits until the server knows.
    pub async fn allow(&self, namespace: &Namespace, rule: PolicyRule) {
        let metadata = self.metadata();
        let role = Role { metadata, rules: Some(vec![rule.clone()]) };
        namespace.create(&role).await;
        self.bind(namespace, &rule).await;
    }

    /// Lets the account do this as well, where it may do something already, and waits until the server knows.
    pub async fn also_allow(&self, namespace: &Namespace, rule: PolicyRule) {
        let name = self.metadata().name.unwrap_or_default();
        let mut role: Role = namespace.api().get(&name).await.expect("a Role");
        role.rules.get_or_insert_default().push(rule.clone());
        namespace.replace(&role).await;
        self.wait_until(true, Some(&namespace.name), &rule).await;
    }

    /// Takes away what it was allowed there, and waits until the server knows.
    pub async fn forbid(&self, namespace: &Namespace, rule: &PolicyRule) {
        namespace.delete(&self.binding()).await;
        self.wait_until(false, Some(&namespace.name), rule).await;
    }

    /// Gives back what it was allowed there, and waits until the server knows.
    pub async fn bind(&self, namespace: &Namespace, rule: &PolicyRule) {
        namespace.create(&self.binding()).await;
        self.wait_until(true, Some(&namespace.name), rule).await;
    }

    fn binding(&self) -> RoleBinding {
        let (metadata, role_ref) = (self.metadata(), self.role_ref("Role"));
        RoleBinding { metadata, role_ref, subjects: Some(vec![self.subject()]) }
    }

    /// Lets the account do this in every namespace, and waits until the server knows.
    pub async fn allow_everywhere(&self, rule: PolicyRule) {
        let metadata = self.metadata();
        let role =
            ClusterRole { metadata: metadata.clone(), rules: Some(vec![rule.clone()]), ..ClusterRole::default() };
        let params = PostParams::default();
        Api::all(self.home.client()).create(&params, &role).await.expect("a ClusterRole");
        let role_ref = self.role_ref("ClusterRole");
        let binding = ClusterRoleBinding { metadata, role_ref, subjects: Some(vec![self.subject()]) };
        Api::all(self.home.client()).create(&params, &binding).await.expect("a ClusterRoleBinding");
        self.wait_until(true, None, &rule).await;
    }

    fn metadata(&self) -> ObjectMeta {
        ObjectMeta { name: Some(format!("{}-{}", self.home.name, self.name)), ..ObjectMeta::default() }
    }

    fn role_ref(&self, kind: &str) -> RoleRef {
        let name = self.metadata().name.unwrap_or_default();
        RoleRef { api_group: Some("rbac.authorization.k8s.io".to_owned()), kind: kind.to_owned(), name }
    }

    fn subject(&self) -> Subject {
        Subject {
            kind: "ServiceAccount".to_owned(),
            name: self.name.clone(),
            namespace: Some(self.home.name.clone()),
            ..Subject::default()
        }
    }

    /// The user name that requests with this account's token are known by.
    pub fn user(&self) -> String {
        format!("system:serviceaccount:{}:{}", self.home.name, self.name)
    }

    /// Waits until the server knows whether the account may do this.
    pub async fn wait_until(&self, allowed: bool, namespace: Option<&str>, rule: &PolicyRule) {
        let reviews = Api::<SubjectAccessReview>::all(self.home.client());
        let name = rule.resource_names.iter().flatten().next();
        let groups = ["system:serviceaccounts", "system:authenticated"].map(str::to_owned);
        for (resource, verb) in rule.resources.iter().flatten().flat_map(|r| rule.verbs.iter().map(move |v| (r, v))) {
            let attributes = ResourceAttributes {
                namespace: namespace.map(str::to_owned),
                resource: Some(resource.clone()),
                verb: Some(verb.clone()),
                name: name.cloned(),
                ..ResourceAttributes::default()
            };
            let spec = SubjectAccessReviewSpec {
                user: Some(self.user()),
                groups: Some(groups.to_vec()),
                resource_attributes: Some(attributes),
                ..SubjectAccessReviewSpec::default()
            };
            let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
            until(PATIENCE, &format!("{}: {verb} {resource}, allowed: {allowed}", self.user()), async || {
                let answer = reviews.create(&PostParams::default(), &review).await.expect("a review");
                let status = answer.status.expect("a review with a status");
                if status.allowed == allowed { Ok(()) } else { Err(format!("{status:?}")) }
            })
            .await;
        }
    }
}
