//! A list that forgets its oldest items.

use serde::{Deserializer, Serialize, Serializer, de::DeserializeOwned};
use stepgraph::{Append, Mark, Reducer};

/// Items kept when a list was cut.
const KEPT: usize = 50;
/// Items at which it is cut.
const KEPT_MAX: usize = 100;

/// Adds the items of each update at the end of a list. When there are more than a hundred, the newest fifty stay, so that a
/// long session costs no more than a short one. The store keeps only the new tail, but for the steps that cut.
#[derive(Debug, Clone, Copy)]
pub struct Recent;

impl<T: Serialize + DeserializeOwned> Reducer<Vec<T>> for Recent {
    type Update = Vec<T>;
    const ID: &'static str = "recent";
    const CONCURRENT: bool = true;

    fn first(mut update: Vec<T>) -> Vec<T> {
        cut(&mut update);
        update
    }

    fn reduce(current: &mut Vec<T>, update: Vec<T>) {
        current.extend(update);
        cut(current);
    }

    /// The length before the step, then that of each update: what was only added is told from what was cut by their sum.
    fn mark(current: &Vec<T>) -> Mark {
        let mut mark = Mark::notes::<usize>();
        mark.add_notes([current.len()]);
        mark
    }

    fn note(mark: &mut Mark, update: &Vec<T>) {
        mark.add_notes([update.len()]);
    }

    fn effect(current: &Vec<T>, mark: &Mark) -> impl Serialize
    where
        Vec<T>: Serialize,
    {
        let lengths = mark.noted::<usize>().unwrap_or_default();
        let before = lengths
            .first()
            .filter(|_| lengths.iter().sum::<usize>() == current.len());
        Grown {
            list: current,
            before: before.copied(),
        }
    }

    fn restore<'de, D: Deserializer<'de>>(slot: &mut Option<Vec<T>>, effect: D) -> Result<(), D::Error>
    where
        Vec<T>: DeserializeOwned,
    {
        <Append as Reducer<Vec<T>>>::restore(slot, effect)
    }
}

/// The effect of a step on a list, as [`Append`] stores it: a tail if it was only added to, all of it otherwise.
struct Grown<'a, T> {
    list: &'a Vec<T>,
    before: Option<usize>,
}

impl<T: Serialize + DeserializeOwned> Serialize for Grown<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mark = self.before.map_or(Mark::WHOLE, Mark::len);
        <Append as Reducer<Vec<T>>>::effect(self.list, &mark).serialize(serializer)
    }
}

fn cut<T>(list: &mut Vec<T>) {
    if list.len() > KEPT_MAX {
        list.drain(..list.len() - KEPT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is restored from the stored effect of a step that brings these updates.
    fn stored(before: &[u32], updates: &[Vec<u32>]) -> (Vec<u32>, serde_json::Value) {
        let mut list = before.to_vec();
        let mut mark = <Recent as Reducer<Vec<u32>>>::mark(&list);
        for update in updates {
            <Recent as Reducer<Vec<u32>>>::note(&mut mark, update);
            Recent::reduce(&mut list, update.clone());
        }
        let effect = serde_json::to_value(Recent::effect(&list, &mark)).unwrap();
        let mut restored = Some(before.to_vec());
        <Recent as Reducer<Vec<u32>>>::restore(&mut restored, effect.clone()).unwrap();
        assert_eq!(restored.as_ref(), Some(&list));
        (list, effect)
    }

    #[test]
    fn a_list_that_grows_is_stored_by_its_tail_and_one_that_is_cut_as_a_whole() {
        let numbers = |to: u32| (0..to).collect::<Vec<_>>();

        let (list, effect) = stored(&numbers(10), &[vec![90, 91]]);
        assert_eq!((list.len(), effect), (12, serde_json::json!({"append": [90, 91]})));

        let (list, effect) = stored(&numbers(99), &[vec![200], vec![201]]);
        assert_eq!((list.len(), list.last()), (50, Some(&201)));
        assert!(effect.get("set").is_some());

        for (before, updates) in [
            (10, vec![numbers(95)]),
            (60, vec![numbers(45), numbers(20)]),
            (0, vec![numbers(500)]),
        ] {
            let (list, _) = stored(&numbers(before), &updates);
            assert!(list.len() <= KEPT_MAX);
        }
    }
}
