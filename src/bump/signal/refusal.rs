//! The reason for which configbump may not signal a target, and the remedy.

use super::Signal;
use crate::bump::BumpError;
use crate::bump::process::Target;

/// Linux security module that confines configbump.
#[derive(Clone, Debug, PartialEq, Eq)]
enum SecurityModule {
    AppArmor { profile: String },
    SeLinux { context: String },
    Unknown,
}

impl SecurityModule {
    /// Returns the module whose label this process has.
    fn of_this_process() -> Self {
        // Without a security module, the file cannot be read.
        Self::of_label(&std::fs::read_to_string("/proc/self/attr/current").unwrap_or_default())
    }

    /// Returns the module that writes such a label: `docker-default (enforce)` or `system_u:system_r:container_t:s0:c1,c2`.
    fn of_label(label: &str) -> Self {
        let label = label.trim_matches(['\0', '\n']);
        match label.rsplit_once(" (") {
            Some((profile, "enforce)" | "complain)" | "kill)" | "mixed)")) => {
                Self::AppArmor { profile: profile.to_owned() }
            }
            _ if label.matches(':').count() >= 3 => Self::SeLinux { context: label.to_owned() },
            _ => Self::Unknown,
        }
    }

    fn denial(&self) -> String {
        match self {
            Self::AppArmor { profile } => format!(
                "AppArmor denies it to configbump's profile `{profile}`; give both containers the same profile \
                 (appArmorProfile), or allow `signal` in both profiles"
            ),
            Self::SeLinux { context } => format!(
                "SELinux denies it to configbump's context `{context}`; give both containers the same type and level \
                 (seLinuxOptions)"
            ),
            Self::Unknown => {
                "a security module such as AppArmor or SELinux denies it; give both containers the same profile \
                              (appArmorProfile or seLinuxOptions)"
                    .to_owned()
            }
        }
    }
}

/// Returns the failure for a signal that the kernel refused with EPERM. `kill(2)` has the rule: the sender has the user of the
/// target, or `CAP_KILL`. So for one user, a security module refused it.
pub fn refused(signal: Signal, target: &Target, user: u32, own: u32) -> BumpError {
    if user == own {
        return denied(signal, target);
    }
    BumpError::Failed(format!(
        "may not send {signal} to {target}: it runs as user {user} and configbump as user {own}; run both as the \
         same user (runAsUser), or configbump with the capability CAP_KILL"
    ))
}

/// Returns the failure for a signal that a security module denied: only such a module answers EACCES.
pub fn denied(signal: Signal, target: &Target) -> BumpError {
    BumpError::Failed(format!("may not send {signal} to {target}: {}", SecurityModule::of_this_process().denial()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_names_its_security_module() {
        let app_armor = |profile: &str| SecurityModule::AppArmor { profile: profile.to_owned() };
        let se_linux = |context: &str| SecurityModule::SeLinux { context: context.to_owned() };
        for (label, module) in [
            ("docker-default (enforce)\n", app_armor("docker-default")),
            ("cri-containerd.apparmor.d (enforce)", app_armor("cri-containerd.apparmor.d")),
            ("system_u:system_r:container_t:s0:c1,c2\0", se_linux("system_u:system_r:container_t:s0:c1,c2")),
            ("unconfined\n", SecurityModule::Unknown),
            ("", SecurityModule::Unknown),
        ] {
            assert_eq!(SecurityModule::of_label(label), module, "{label}");
            let denial = module.denial();
            assert!(denial.contains("; give both containers the same") && denial.lines().count() == 1, "{denial}");
        }
    }
}
