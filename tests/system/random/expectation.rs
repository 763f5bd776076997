//! Waits until DIR is as the model says, and until the last bump has seen it.

use std::collections::BTreeSet;
use std::fs;

use super::mode::Prune;
use super::model::{self, BAD, EVIL, Name, Object, Objects, Tree, head, is_at_or_above, is_marked, winners};
use super::world::{PINNED, REVOKED, World};
use crate::harness::endpoints::Endpoints;

/// Trees of sets: the live one, the one before, and the one that the program accepted last.
const TREES_MAX: usize = 3;

/// What DIR may hold in addition to the files that it must hold.
#[derive(Clone, Debug, Default)]
struct Leeway {
    /// Files whose objects are gone.
    stale: bool,
    /// Paths that may hold any version, or none.
    paths: BTreeSet<String>,
    /// Objects may be held at their earlier versions.
    rolled_back: bool,
    /// The first bump waits for a blocked path.
    unbumped: bool,
}

impl World<'_> {
    /// Objects as configbump can know them.
    pub fn visible(&self) -> Objects {
        let mut objects = self.objects.clone();
        if let Some(last_seen) = &self.last_seen {
            objects.retain(|(namespace, _), _| *namespace != REVOKED);
            objects.extend(last_seen.clone());
        }
        objects
    }

    /// Files of the objects.
    pub fn wanted(&self) -> Tree {
        winners(self.mode.layout, &self.names, &self.visible())
    }

    /// Paths and values that an object asks for.
    pub fn claims<'w>(&'w self, name: &'w Name, object: &'w Object) -> impl Iterator<Item = (String, &'w String)> {
        model::paths(self.mode.layout, &self.names, name, &object.version)
    }

    /// Files of the objects and of others, but for those that need the path of a foreign directory as a file.
    fn expected(&self) -> Tree {
        let mut expected = self.foreign.clone();
        expected.retain(|path, _| !self.foreign_doomed.contains(path));
        let is_blocked = |path: &String| self.blocked.as_ref().is_some_and(|blocked| is_at_or_above(path, blocked));
        expected.extend(self.wanted().into_iter().filter(|(path, _)| !is_blocked(path)));
        expected
    }

    fn leeway(&self) -> Leeway {
        let selected = || self.objects.iter().filter(|(_, object)| object.is_selected);
        let of_bad = selected().filter(|(_, object)| object.is_marked(BAD));
        Leeway {
            stale: self.mode.prune == Prune::Never || self.mode.guard && self.last_seen.is_some(),
            paths: of_bad.flat_map(|(name, object)| self.claims(name, object)).map(|(path, _)| path).collect(),
            rolled_back: selected().any(|(_, object)| object.is_marked(EVIL)),
            unbumped: self.is_blind,
        }
    }

    /// Waits until DIR is as the model says, and the last bump saw it.
    pub async fn becomes_quiet(&mut self) {
        self.observer.saw_no_violation();
        if self.is_blind && self.last_seen.is_some() {
            return self.keeps_what_is_forbidden().await;
        }
        let (expected, leeway) = (self.expected(), self.leeway());
        self.say(&format!("expect quiet, {leeway:?}"));
        let look = || {
            self.observer.saw_no_violation();
            let files = self.workspace.files().into_map();
            self.is_as_expected(&expected, &files, &leeway)?;
            self.is_refused()?;
            if !leeway.unbumped {
                self.is_bumped(&files)?;
            }
            let trees = self.workspace.trees();
            if trees.len() <= TREES_MAX { Ok(()) } else { Err(format!("{trees:?}")) }
        };
        self.sidecar().soon("DIR to be as the model says", look).await;
        if self.blocked.is_none() && !self.is_blind {
            Endpoints::of(self.sidecar()).await.becomes("/readyz", 200).await;
        }
        self.note_quiet(leeway.rolled_back);
        self.say("quiet");
    }

    /// Checks that no file of a forbidden namespace goes, however configbump was started.
    async fn keeps_what_is_forbidden(&self) {
        self.sidecar().soon_says("forbidden").await;
        let files = self.workspace.files().into_map();
        for path in &self.forbidden {
            assert!(files.contains_key(path), "{path} of a forbidden namespace is gone");
        }
    }

    /// From now on, checks what holds only once DIR is in sync, and forgets the files of others that are replaced or removed.
    fn note_quiet(&mut self, is_rolled_back: bool) {
        let files = self.workspace.files().into_map();
        for path in std::mem::take(&mut self.foreign_doomed) {
            self.foreign.remove(&path);
        }
        let (prune, at_risk) = (self.mode.prune, std::mem::take(&mut self.foreign_at_risk));
        self.foreign.retain(|path, content| {
            let may_go = prune == Prune::All || at_risk.contains(path);
            !may_go || files.get(path) == Some(content)
        });
        // A file whose removal the guard holds is of an earlier version of its object.
        self.observer.is_set(self.mode.set && !self.mode.holds_deletions());
        // The tree that the program accepted last may be of another layout.
        if !self.is_blind && !is_rolled_back {
            let name = (0, PINNED.to_owned());
            let path = self.claims(&name, &self.objects[&name]).map(|(path, _)| path).next();
            self.observer.pin(path);
        }
    }

    /// Compares DIR with the model.
    fn is_as_expected(&self, expected: &Tree, files: &Tree, leeway: &Leeway) -> Result<(), String> {
        let is_free = |path: &String| {
            let is_foreign = self.foreign.get(path).is_some_and(|content| expected.get(path) == Some(content));
            let may_go = is_foreign && (self.mode.prune == Prune::All || self.foreign_at_risk.contains(path));
            let is_stale = leeway.stale && !expected.contains_key(path);
            may_go || is_stale || leeway.paths.contains(path) || leeway.rolled_back
        };
        let shown = |content: Option<&Vec<u8>>| content.map_or("nothing".to_owned(), |content| head(content));
        let is_evil = |path: &String| files.get(path).is_some_and(|content| head(content).ends_with(EVIL));
        let paths: BTreeSet<_> = expected.keys().chain(files.keys()).collect();
        let differences: Vec<_> = paths
            .into_iter()
            .filter(|path| expected.get(*path) != files.get(*path) && !is_free(path) || is_evil(path))
            .map(|path| format!("{path}: {}, instead of {}", shown(files.get(path)), shown(expected.get(path))))
            .collect();
        if differences.is_empty() { Ok(()) } else { Err(differences.join("\n    ")) }
    }

    /// Checks that each content that is to be refused was refused.
    fn is_refused(&self) -> Result<(), String> {
        let read = |name: &str| fs::read_to_string(self.workspace.beside(name)).unwrap_or_default();
        let selected = self.objects.values().filter(|object| object.is_selected);
        for value in selected.flat_map(|object| object.version.values.values()) {
            let head = head(value.as_bytes());
            let refuses = |line: &str| line.starts_with('1') && line.contains(&head);
            let is_missing = is_marked(value, BAD) && !read("refused").contains(&head)
                || is_marked(value, EVIL) && !self.runs.iter().any(|run| read(&run.calls).lines().any(refuses));
            if is_missing {
                return Err(format!("{head:?} was not refused"));
            }
        }
        Ok(())
    }

    /// Checks that the last bump saw these files.
    fn is_bumped(&self, files: &Tree) -> Result<(), String> {
        // Foreign files change without a bump.
        let is_own = |text: &String| !text.contains("=foreign ");
        let now: BTreeSet<_> =
            files.iter().map(|(path, content)| format!("{path}={}", head(content))).filter(is_own).collect();
        let last = self.last_bump().ok_or("there was no bump")?;
        let (verdict, view) = last.split_once(' ').unwrap_or_default();
        let view: BTreeSet<_> = view.split_terminator(';').map(str::to_owned).filter(is_own).collect();
        if verdict == "0" && view == now {
            Ok(())
        } else {
            Err(format!("the last bump has verdict {verdict} and saw {view:?}\n    instead of {now:?}"))
        }
    }

    /// Returns the verdict and the view of the last bump of the last run that had one.
    fn last_bump(&self) -> Option<String> {
        let mut of_target = self.target.bumps();
        self.runs.iter().rev().find_map(|run| match run.target_bumps {
            Some(before) => of_target.split_off(before.min(of_target.len())).pop().map(|view| format!("0 {view}")),
            None => {
                let calls = fs::read_to_string(self.workspace.beside(&run.calls)).unwrap_or_default();
                calls.lines().next_back().map(str::to_owned)
            }
        })
    }
}
