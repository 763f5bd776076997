//! Which of several objects a check refuses: a search by halves, without input or output.
//!
//! All of them are tried together. If that fails, the new ones are tried without those that had failed before, then halves
//! of what failed, down to single ones. What passes goes live at once, so that each try is on top of it. When something has
//! passed since others failed, those are tried again: it may be what they lacked.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::object::ObjectKey;

/// Objects that can only go live together: one needs a folder where another leaves a file.
pub type Unit = BTreeSet<Arc<ObjectKey>>;

/// How many tries there are, so that a slow check and many objects come to an end. What is not told apart by then is held.
const TRIES_MAX: u32 = 64;

/// The state of the search.
#[derive(Debug)]
pub struct Trial {
    /// What is to be tried, the next at the end; none is empty.
    groups: Vec<Group>,
    /// What has failed by itself.
    failed: Vec<Unit>,
    tries_left: u32,
    /// Whether something has passed since the first of them failed.
    progress: bool,
}

#[derive(Debug)]
struct Group {
    units: Vec<Unit>,
    /// Where it is cut in two if it fails.
    cut: usize,
}

impl Group {
    fn halved(units: Vec<Unit>) -> Self {
        Self { cut: units.len() / 2, units }
    }
}

impl Trial {
    /// Of new units, and of those that have failed before.
    #[must_use]
    pub fn new(new: Vec<Unit>, failed_before: Vec<Unit>) -> Self {
        let mut trial = Self { groups: Vec::new(), failed: Vec::new(), tries_left: TRIES_MAX, progress: false };
        let cut = if new.is_empty() || failed_before.is_empty() {
            usize::midpoint(new.len(), failed_before.len())
        } else {
            new.len()
        };
        trial.push(Group { units: new.into_iter().chain(failed_before).collect(), cut });
        trial
    }

    /// What is to be tried next; nothing when it is over.
    #[must_use]
    pub fn next(&self) -> Option<&[Unit]> {
        self.groups.last().map(|group| group.units.as_slice())
    }

    /// What was to be tried next has passed, and is live.
    pub fn passed(&mut self) {
        self.groups.pop();
        self.tries_left = self.tries_left.saturating_sub(1);
        self.progress |= !self.failed.is_empty();
        self.end_after_too_many();
        self.again_after_progress();
    }

    /// What was to be tried next has not passed. Gives the unit that failed by itself, if it was one.
    pub fn failed(&mut self) -> Option<Unit> {
        self.tries_left = self.tries_left.saturating_sub(1);
        let Group { mut units, cut } = self.groups.pop()?;
        let alone = if units.len() == 1 { units.pop() } else { None };
        if let Some(unit) = &alone {
            self.failed.push(unit.clone());
        } else {
            let second = units.split_off(cut);
            self.push(Group::halved(second));
            self.push(Group::halved(units));
        }
        self.end_after_too_many();
        self.again_after_progress();
        alone
    }

    /// What has failed, when it is over.
    #[must_use]
    pub fn held(self) -> Vec<Unit> {
        self.failed
    }

    fn push(&mut self, group: Group) {
        if !group.units.is_empty() {
            self.groups.push(group);
        }
    }

    fn end_after_too_many(&mut self) {
        if self.tries_left == 0 {
            self.failed.extend(self.groups.drain(..).flat_map(|group| group.units));
        }
    }

    fn again_after_progress(&mut self) {
        if self.groups.is_empty() && self.tries_left > 0 && std::mem::take(&mut self.progress) {
            let failed = std::mem::take(&mut self.failed);
            self.push(Group::halved(failed));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::object::Kind;

    fn unit(name: &str) -> Unit {
        Unit::from([Arc::new(ObjectKey { kind: Kind::ConfigMap, namespace: "ns".into(), name: name.into() })])
    }

    fn units(names: impl IntoIterator<Item = usize>) -> Vec<Unit> {
        names.into_iter().map(|number| unit(&number.to_string())).collect()
    }

    fn number(unit: &Unit) -> usize {
        unit.iter().next().map_or("", |key| &key.name).parse().expect("a number")
    }

    /// Goes through a trial with a check of what is live: what passed, what is held, and the number of tries.
    fn run(mut trial: Trial, check: impl Fn(&BTreeSet<usize>) -> bool) -> (BTreeSet<usize>, BTreeSet<usize>, u32) {
        let (mut live, mut tries) = (BTreeSet::new(), 0);
        while let Some(group) = trial.next() {
            tries += 1;
            let candidate: BTreeSet<usize> = live.iter().copied().chain(group.iter().map(number)).collect();
            if check(&candidate) {
                live = candidate;
                trial.passed();
            } else {
                trial.failed();
            }
        }
        let held = trial.held().iter().map(number).collect();
        (live, held, tries)
    }

    #[test]
    fn what_passes_together_takes_one_try() {
        assert_eq!(run(Trial::new(units(0..100), units([])), |_| true), ((0..100).collect(), BTreeSet::new(), 1));
        assert_eq!(run(Trial::new(Vec::new(), Vec::new()), |_| true).2, 0);
    }

    #[test]
    fn one_culprit_among_many_is_found_in_a_few_tries() {
        let (live, held, tries) = run(Trial::new(units(0..64), units([])), |live| !live.contains(&37));
        assert_eq!((live.len(), held), (63, BTreeSet::from([37])));
        assert!(tries <= 15, "{tries} tries");
    }

    #[test]
    fn a_new_unit_is_not_delayed_by_those_that_had_failed() {
        let (live, held, tries) = run(Trial::new(units([7]), units(0..5)), |live| live.iter().all(|unit| *unit == 7));
        assert_eq!((live, held), (BTreeSet::from([7]), (0..5).collect()));
        assert!(tries <= 20, "{tries} tries");
        let mut trial = Trial::new(units([7]), units(0..5));
        trial.failed();
        assert_eq!(trial.next(), Some(&units([7])[..]), "it is the second try");
    }

    #[test]
    fn what_lacked_another_unit_passes_when_that_has() {
        let needs_5 = |live: &BTreeSet<usize>| !live.contains(&9) && (!live.contains(&0) || live.contains(&5));
        let (live, held, _) = run(Trial::new(units(0..10), units([])), needs_5);
        assert_eq!((live, held), ((0..9).collect(), BTreeSet::from([9])));
    }

    proptest! {
        #[test]
        fn what_goes_live_has_passed_and_every_unit_is_live_or_held(
            new in 0..20_usize, before in 0..20_usize, bad in prop::collection::btree_set(0..40_usize, 0..40),
        ) {
            let all = new + before;
            let (live, held, tries) =
                run(Trial::new(units(0..new), units(new..all)), |live| live.is_disjoint(&bad));
            prop_assert!(live.is_disjoint(&bad) && live.is_disjoint(&held));
            prop_assert_eq!(live.len() + held.len(), all);
            prop_assert!(tries <= TRIES_MAX);
            if bad.len() <= 2 {
                prop_assert!(held.is_subset(&bad), "a good one is held: {:?}", held);
            }
        }
    }
}
