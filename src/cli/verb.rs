//! The word that a command line may begin with. No option has a value of its own that stands alone, and the Go configbump and
//! cm-bump take no such word, so it cannot be meant otherwise.

use std::ffi::OsString;

/// What a command line is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Run,
    Doctor,
    K8sSidecar,
    Completions,
    Man,
}

/// The words, with what they do.
pub(super) const VERBS: [(Verb, &str, &str); 4] = [
    (Verb::Doctor, "doctor", "Check what a run with the same options needs, and print the least Role that would do"),
    (Verb::K8sSidecar, "k8s-sidecar", "Run by the environment variables of k8s-sidecar, and by options"),
    (Verb::Completions, "completions", "Print the completions for a shell: bash, fish or zsh"),
    (Verb::Man, "man", "Print the manual page"),
];

impl Verb {
    /// Takes the word out of the arguments, which the name of the program leads.
    pub fn take(arguments: &mut Vec<OsString>) -> Self {
        let word = arguments.get(1).and_then(|word| word.to_str());
        match VERBS.iter().find(|(_, name, _)| word == Some(name)) {
            None => Self::Run,
            Some((verb, _, _)) => {
                arguments.remove(1);
                *verb
            }
        }
    }
}

/// The words as the help shows them.
pub(super) fn help() -> String {
    let lines = VERBS.map(|(_, name, what)| format!("\n  {name:<13}{what}"));
    format!("In place of a run, as the first word:\n{}", lines.concat())
}
