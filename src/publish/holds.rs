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
    /// The program did not take it, in this batch of all that was ever taken back. It waits until one of the batch changes.
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

    /// What has left the stage is held no more.
    pub fn keep(&mut self, is_staged: impl Fn(&Arc<ObjectKey>) -> bool) {
        self.by_object.retain(|object, _| is_staged(object));
    }

    /// Says which units may be tried. What has left the stage is held no more.
    pub fn sort(&mut self, units: Vec<Unit>, newest: &Newest) -> Sorted {
        self.keep(|object| newest.contains_key(object));
        let is_new = |object: &Arc<ObjectKey>| {
            self.by_object.get(object).is_none_or(|hold| newest.get(object) > Some(&hold.serial))
        };
        let batch_of = |object: &Arc<ObjectKey>| match self.by_object.get(object).map(|hold| &hold.why) {
            Some(Why::Bump(batch)) => Some(*batch),
            _ => None,
        };
        let changed = units.iter().flatten().filter(|object| is_new(object));
        let let_go: BTreeSet<u64> = changed.filter_map(batch_of).collect();
        let mut sorted = Sorted::default();
        for unit in units {
            let stays = |object: &Arc<ObjectKey>| batch_of(object).is_some_and(|batch| !let_go.contains(&batch));
            if unit.iter().any(stays) {
                continue;
            }
            let was_with_others = |object| self.by_object.get(object).is_some_and(|hold| *hold.unit != unit);
            let is_new =
                unit.iter().any(|object| is_new(object) || was_with_others(object) || batch_of(object).is_some());
            if is_new { sorted.new.push(unit) } else { sorted.again.push(unit) }
        }
        sorted
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
    fn what_was_taken_back_waits_until_one_of_its_batch_changes() {
        let mut holds = Holds::default();
        let units = || vec![unit(&["a"]), unit(&["b"]), unit(&["c"])];
        holds.take_back(&unit(&["a", "b"]), &newest(&[("a", 1), ("b", 2)]));
        assert_eq!(holds.sort(units(), &newest(&[("a", 1), ("b", 2), ("c", 3)])), sorted(&[&["c"]], &[]));
        let changed = newest(&[("a", 4), ("b", 2), ("c", 3)]);
        assert_eq!(holds.sort(units(), &changed), sorted(&[&["a"], &["b"], &["c"]], &[]));
    }
}
