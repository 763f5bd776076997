//! Which objects are held back, and since which of their changes. Without input or output.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::trial::Unit;
use crate::object::ObjectKey;
use crate::path::{self, RelPath};

/// Why a change of an object is not live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// The check does not let it pass. It is tried again with whatever comes next, which may be what it lacks.
    Check,
    /// The program refused the batch of this number. The whole batch waits until one of its objects changes or leaves the stage.
    Bump(u64),
}

#[derive(Debug)]
struct Hold {
    /// Of its newest change when it was held.
    serial: u64,
    /// What it was held with: without that it is something new.
    unit: Arc<Unit>,
    why: Why,
}

/// The objects that are held back.
#[derive(Debug, Default)]
pub struct Holds {
    by_object: BTreeMap<Arc<ObjectKey>, Hold>,
    batches: u64,
}

/// What is on the stage, by object: the number of its newest change.
pub type Newest = BTreeMap<Arc<ObjectKey>, u64>;

/// What may go live, and what may not.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Sorted {
    pub new: Vec<Unit>,
    /// Held by the check.
    pub again: Vec<Unit>,
}

impl Holds {
    /// Notes that these changes are held back by the check; whether any of them was not.
    pub fn hold(&mut self, unit: &Unit, newest: &Newest) -> bool {
        self.enter(unit, newest, &Why::Check)
    }

    /// Notes that the program did not take these changes.
    pub fn take_back(&mut self, objects: &Unit, newest: &Newest) {
        self.batches += 1;
        let why = Why::Bump(self.batches);
        self.enter(objects, newest, &why);
    }

    fn enter(&mut self, unit: &Unit, newest: &Newest, why: &Why) -> bool {
        let mut any = false;
        let unit = Arc::new(unit.clone());
        for object in &*unit {
            let serial = newest.get(object).copied().unwrap_or_default();
            let hold = Hold { serial, unit: Arc::clone(&unit), why: why.clone() };
            let before = self.by_object.insert(Arc::clone(object), hold);
            any |= before.is_none_or(|before| before.serial != serial || before.unit != unit);
        }
        any
    }

    /// The objects that are held back, and why.
    pub fn objects(&self) -> impl Iterator<Item = (&Arc<ObjectKey>, &Why)> {
        self.by_object.iter().map(|(object, hold)| (object, &hold.why))
    }

    /// Forgets the objects that have left the stage, and releases the rest of each refused batch that they were in.
    pub fn keep(&mut self, is_staged: impl Fn(&Arc<ObjectKey>) -> bool) {
        self.release(|object, _| !is_staged(object));
        self.by_object.retain(|object, _| is_staged(object));
    }

    /// Sorts the units that may be tried, and forgets the objects that have left the stage.
    pub fn sort(&mut self, units: Vec<Unit>, newest: &Newest) -> Sorted {
        let has_left =
            |(object, hold): (&Arc<ObjectKey>, &Hold)| hold.why == Why::Check && !newest.contains_key(object);
        // A check that was given up after too many tries may come to an end without those that have left.
        let is_smaller = self.by_object.iter().any(has_left);
        let is_newer = |object: &Arc<ObjectKey>, hold: &Hold| newest.get(object).is_none_or(|now| *now > hold.serial);
        self.release(is_newer);
        self.by_object.retain(|object, _| newest.contains_key(object));
        let mut sorted = Sorted::default();
        for unit in units {
            let holds: Vec<Option<&Hold>> = unit.iter().map(|object| self.by_object.get(object)).collect();
            if holds.iter().flatten().any(|hold| hold.why != Why::Check) {
                continue;
            }
            let as_it_was = |hold: &Hold, object| *hold.unit == unit && !is_newer(object, hold);
            let is_known =
                unit.iter().zip(&holds).all(|(object, hold)| hold.is_some_and(|hold| as_it_was(hold, object)));
            if is_known && !is_smaller { sorted.again.push(unit) } else { sorted.new.push(unit) }
        }
        sorted
    }

    /// Releases every refused batch of which one object has changed. Leaving the stage is a change: the object was deleted, lost
    /// its label, or has its accepted content again.
    fn release(&mut self, has_changed: impl Fn(&Arc<ObjectKey>, &Hold) -> bool) {
        let changed = self.by_object.iter().filter(|(object, hold)| has_changed(object, hold));
        let batches: BTreeSet<u64> = changed.filter_map(|(_, hold)| hold.why.batch()).collect();
        self.by_object.retain(|_, hold| hold.why.batch().is_none_or(|batch| !batches.contains(&batch)));
    }
}

impl Why {
    fn batch(&self) -> Option<u64> {
        match self {
            Self::Bump(batch) => Some(*batch),
            Self::Check => None,
        }
    }
}

/// The objects of the stage, put together where one has to make way for another, and the newest change of each.
pub fn units<'a>(staged: impl Iterator<Item = (&'a RelPath, &'a Arc<ObjectKey>, u64)>) -> (Vec<Unit>, Newest) {
    let mut newest = Newest::new();
    let mut by_path = BTreeMap::new();
    for (path, object, serial) in staged {
        let known = newest.entry(Arc::clone(object)).or_default();
        *known = serial.max(*known);
        by_path.insert(path.clone(), Arc::clone(object));
    }
    let mut units: Vec<Unit> = Vec::new();
    let mut unit_of: BTreeMap<Arc<ObjectKey>, usize> = BTreeMap::new();
    for object in newest.keys() {
        unit_of.insert(Arc::clone(object), units.len());
        units.push(Unit::from([Arc::clone(object)]));
    }
    for (path, object) in &by_path {
        for (_, other) in path::below(&by_path, path.as_str()) {
            let (into, from) = (unit_of[object], unit_of[other]);
            if into != from {
                let moved = std::mem::take(&mut units[from]);
                unit_of.extend(moved.iter().map(|object| (Arc::clone(object), into)));
                units[into].extend(moved);
            }
        }
    }
    units.retain(|unit| !unit.is_empty());
    (units, newest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::Kind;

    fn key(name: &str) -> Arc<ObjectKey> {
        Arc::new(ObjectKey { kind: Kind::ConfigMap, namespace: "ns".into(), name: name.into() })
    }

    fn unit(names: &[&str]) -> Unit {
        names.iter().map(|name| key(name)).collect()
    }

    fn newest(serials: &[(&str, u64)]) -> Newest {
        serials.iter().map(|(name, serial)| (key(name), *serial)).collect()
    }

    fn sorted(new: &[&[&str]], again: &[&[&str]]) -> Sorted {
        let units = |units: &[&[&str]]| units.iter().map(|names| unit(names)).collect();
        Sorted { new: units(new), again: units(again) }
    }

    #[test]
    fn objects_are_one_unit_only_where_one_makes_way_for_another() {
        let staged = [("a", "x"), ("b", "x"), ("c", "y"), ("d/e", "z"), ("d", "y"), ("f.g", "w"), ("f", "v")];
        let staged: Vec<_> = staged
            .iter()
            .zip(1..)
            .map(|((path, name), serial)| (RelPath::parse(path).expect("a path"), key(name), serial))
            .collect();
        let (units, newest_of_all) = units(staged.iter().map(|(path, key, serial)| (path, key, *serial)));
        assert_eq!(units, [unit(&["v"]), unit(&["w"]), unit(&["x"]), unit(&["y", "z"])]);
        assert_eq!(newest_of_all, newest(&[("x", 2), ("y", 5), ("z", 4), ("w", 6), ("v", 7)]));
    }

    #[test]
    fn what_the_check_holds_is_tried_again_with_whatever_comes_next() {
        let mut holds = Holds::default();
        assert!(holds.hold(&unit(&["a"]), &newest(&[("a", 1)])));
        assert!(!holds.hold(&unit(&["a"]), &newest(&[("a", 1)])), "that is nothing new");
        let units = || vec![unit(&["a"]), unit(&["b"])];
        assert_eq!(holds.sort(units(), &newest(&[("a", 1), ("b", 2)])), sorted(&[&["b"]], &[&["a"]]));
        assert_eq!(holds.sort(units(), &newest(&[("a", 3), ("b", 2)])), sorted(&[&["a"], &["b"]], &[]));
        assert_eq!(holds.sort(vec![unit(&["b"])], &newest(&[("b", 2)])), sorted(&[&["b"]], &[]));
        assert_eq!(holds.objects().count(), 0, "it has left the stage");
    }

    #[test]
    fn a_refused_batch_waits_until_one_object_changes() {
        let mut holds = Holds::default();
        let units = || vec![unit(&["a"]), unit(&["b"]), unit(&["c"])];
        holds.take_back(&unit(&["a", "b"]), &newest(&[("a", 1), ("b", 2)]));
        assert_eq!(holds.sort(units(), &newest(&[("a", 1), ("b", 2), ("c", 3)])), sorted(&[&["c"]], &[]));
        let changed = newest(&[("a", 4), ("b", 2), ("c", 3)]);
        assert_eq!(holds.sort(units(), &changed), sorted(&[&["a"], &["b"], &["c"]], &[]));
    }

    #[test]
    fn a_refused_batch_is_released_when_an_object_leaves() {
        for leaves_before_the_end_of_a_trial in [true, false] {
            let mut holds = Holds::default();
            holds.take_back(&unit(&["bad", "good"]), &newest(&[("bad", 1), ("good", 2)]));
            holds.take_back(&unit(&["other"]), &newest(&[("other", 3)]));
            if leaves_before_the_end_of_a_trial {
                holds.keep(|object| object.name != "bad");
            }
            let units = || vec![unit(&["good"]), unit(&["other"])];
            let left = newest(&[("good", 2), ("other", 3)]);
            assert_eq!(holds.sort(units(), &left), sorted(&[&["good"]], &[]));
            assert_eq!(
                holds.sort(units(), &left),
                sorted(&[&["good"]], &[]),
                "a trial that was not run releases it, too"
            );
            assert_eq!(holds.objects().map(|(object, _)| object.name.as_str()).collect::<Vec<_>>(), ["other"]);
        }
    }

    #[test]
    fn an_object_released_beside_a_held_one_stays_released() {
        let mut holds = Holds::default();
        holds.take_back(&unit(&["bad", "good"]), &newest(&[("bad", 1), ("good", 2)]));
        holds.take_back(&unit(&["above"]), &newest(&[("above", 3)]));
        let left = newest(&[("good", 2), ("above", 3)]);
        assert_eq!(holds.sort(vec![unit(&["above", "good"])], &left), sorted(&[], &[]), "they go live together only");
        let left = newest(&[("good", 2)]);
        assert_eq!(holds.sort(vec![unit(&["good"])], &left), sorted(&[&["good"]], &[]));
    }

    #[test]
    fn checks_are_repeated_without_an_object_that_left() {
        let mut holds = Holds::default();
        let both = newest(&[("a", 1), ("b", 2)]);
        assert!(holds.hold(&unit(&["a"]), &both) && holds.hold(&unit(&["b"]), &both));
        assert_eq!(holds.sort(vec![unit(&["a"]), unit(&["b"])], &both), sorted(&[], &[&["a"], &["b"]]));
        assert_eq!(holds.sort(vec![unit(&["b"])], &newest(&[("b", 2)])), sorted(&[&["b"]], &[]));
        assert_eq!(holds.sort(vec![unit(&["b"])], &newest(&[("b", 2)])), sorted(&[], &[&["b"]]));
    }
}
