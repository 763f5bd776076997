//! The least that a run would have to be granted, as YAML to paste.

use std::collections::BTreeSet;

use serde_json::json;

use super::Facts;
use crate::config::{Config, Namespaces, Selection, SourceConfig};
use crate::source::cluster::Account;

/// The user of configbump's image.
const IMAGE_USER: u32 = 65532;

/// The Roles with their bindings, and what stands in the pod.
pub(super) fn text(config: &Config, facts: &Facts) -> String {
    let mut text = String::new();
    if let SourceConfig::Cluster(cluster) = &config.source {
        text.push_str("\n# The least Role: kubectl apply -f -\n");
        text.push_str(&roles(&config.selection, cluster.events, facts));
    }
    text.push_str("\n# The least that a pod needs; this is no object, but goes into its spec.\n---\n");
    text.push_str(&pod(config, facts));
    text
}

fn roles(selection: &Selection, events: bool, facts: &Facts) -> String {
    let mut rule = rule(selection);
    if events {
        rule.push_str("  - apiGroups: [\"\"]\n    resources: [events]\n    verbs: [create, patch]\n");
    }
    if selection.namespaces == Namespaces::All {
        return role("ClusterRole", None, &rule, &subject(facts, None));
    }
    let mut namespaces: BTreeSet<&str> = facts.scopes.iter().filter_map(|scope| scope.namespace.as_deref()).collect();
    if let (true, Namespaces::Named(named)) = (namespaces.is_empty(), &selection.namespaces) {
        namespaces.extend(named.iter().map(String::as_str));
    }
    if namespaces.is_empty() {
        namespaces.insert("default");
    }
    let first = namespaces.first().copied();
    namespaces.iter().map(|&namespace| role("Role", Some(namespace), &rule, &subject(facts, first))).collect()
}

/// The rule of a Role, of which a selector cannot be part.
fn rule(selection: &Selection) -> String {
    let kinds: Vec<_> = selection.kinds.iter().map(|kind| kind.resource()).collect();
    let mut rule = format!("  - apiGroups: [\"\"]\n    resources: [{}]\n    verbs: [list, watch]\n", kinds.join(", "));
    if selection.labels.is_none() {
        rule.push_str(&format!("    resourceNames: {}\n", json!(selection.names)));
    }
    rule
}

/// Whom it is granted to: who asked, else the pods that name no account of their own.
fn subject(facts: &Facts, namespace: Option<&str>) -> String {
    match &facts.account {
        Some(Account::User(name)) => {
            format!("  - apiGroup: rbac.authorization.k8s.io\n    kind: User\n    name: {}\n", json!(name))
        }
        Some(Account::ServiceAccount { namespace, name }) => {
            let (name, namespace) = (json!(name), json!(namespace));
            format!("  - kind: ServiceAccount\n    name: {name}\n    namespace: {namespace}\n")
        }
        None => {
            let namespace = namespace.unwrap_or("default");
            format!(
                "  - kind: ServiceAccount\n    name: default # the pod's serviceAccountName\n    namespace: {namespace}\n"
            )
        }
    }
}

fn role(kind: &str, namespace: Option<&str>, rule: &str, subject: &str) -> String {
    let metadata = match namespace {
        Some(namespace) => format!("metadata:\n  name: configbump\n  namespace: {namespace}\n"),
        None => "metadata:\n  name: configbump\n".to_owned(),
    };
    let api = "apiVersion: rbac.authorization.k8s.io/v1\n";
    format!(
        "---\n{api}kind: {kind}\n{metadata}rules:\n{rule}---\n{api}kind: {kind}Binding\n{metadata}roleRef:\n  \
         apiGroup: rbac.authorization.k8s.io\n  kind: {kind}\n  name: configbump\nsubjects:\n{subject}"
    )
}

/// What of a pod's spec configbump depends on.
fn pod(config: &Config, facts: &Facts) -> String {
    let container = "allowPrivilegeEscalation: false\n      capabilities:\n        drop: [ALL]\n      seccompProfile:\n        \
                     type: RuntimeDefault\n";
    if config.bump.program.is_some() {
        return format!("containers:\n  - name: configbump\n    securityContext:\n      {container}");
    }
    let owner = facts.owner.filter(|owner| *owner != 0);
    let user = facts.target_user.or(owner).unwrap_or(IMAGE_USER);
    let sharing = if config.bump.signal.is_some() { "shareProcessNamespace: true\n" } else { "" };
    format!(
        "{sharing}containers:\n  - name: configbump\n    securityContext:\n      runAsUser: {user}\n      runAsNonRoot: {}\n      \
         readOnlyRootFilesystem: true\n      {container}",
        user != 0
    )
}
