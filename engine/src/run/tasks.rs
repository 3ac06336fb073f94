//! The tasks of a step.

use std::ops::{Deref, DerefMut};

use super::plan::Seed;

/// The tasks of a step, in their order. The one that most steps have needs no list.
#[derive(Debug, Clone)]
pub(crate) struct Tasks<P> {
    /// `None` while there are none or several.
    only: Option<Seed<P>>,
    /// Empty while there is one.
    many: Vec<Seed<P>>,
}

impl<P> Tasks<P> {
    pub(crate) const fn new() -> Self {
        Self {
            only: None,
            many: Vec::new(),
        }
    }

    /// These nodes, each once, in order of their names, and fed with nothing.
    pub(crate) fn of_nodes(nodes: &[usize]) -> Self {
        let task = |node: &usize| Seed {
            node: *node,
            send: None,
        };
        let mut tasks: Vec<_> = nodes.iter().map(task).collect();
        tasks.sort_unstable_by_key(|task| task.node);
        tasks.dedup_by_key(|task| task.node);
        tasks.into()
    }

    /// This is the only one.
    pub(crate) fn set_only(&mut self, task: Seed<P>) {
        self.many.clear();
        self.only = Some(task);
    }

    /// This node is the only one, and is fed with nothing.
    #[inline]
    pub(crate) fn set_node(&mut self, node: usize) {
        match &mut self.only {
            Some(only) if only.send.is_none() => only.node = node,
            _ => self.set_only(Seed { node, send: None }),
        }
    }

    #[inline]
    pub(crate) fn clear(&mut self) {
        self.many.clear();
        self.only = None;
    }

    pub(crate) fn take_list(&mut self) -> Vec<Seed<P>> {
        let mut list = std::mem::take(&mut self.many);
        list.extend(self.only.take());
        list
    }
}

impl<P> Default for Tasks<P> {
    fn default() -> Self {
        Self::new()
    }
}

impl<P> From<Vec<Seed<P>>> for Tasks<P> {
    fn from(mut many: Vec<Seed<P>>) -> Self {
        let only = if many.len() == 1 { many.pop() } else { None };
        Self { only, many }
    }
}

impl<P> Deref for Tasks<P> {
    type Target = [Seed<P>];

    #[inline]
    fn deref(&self) -> &[Seed<P>] {
        if self.only.is_some() {
            self.only.as_slice()
        } else {
            &self.many
        }
    }
}

impl<P> DerefMut for Tasks<P> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [Seed<P>] {
        if self.only.is_some() {
            self.only.as_mut_slice()
        } else {
            &mut self.many
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seeds(nodes: &[usize]) -> Vec<Seed<u8>> {
        nodes
            .iter()
            .map(|node| Seed {
                node: *node,
                send: None,
            })
            .collect()
    }

    #[test]
    fn one_and_several_read_as_the_list_that_they_were_made_of() {
        for nodes in [&[][..], &[3], &[3, 5], &[3, 5, 8]] {
            let mut tasks = Tasks::from(seeds(nodes));
            assert_eq!(&*tasks, seeds(nodes));
            for task in tasks.iter_mut() {
                task.node += 1;
            }
            let later: Vec<_> = nodes.iter().map(|node| node + 1).collect();
            assert_eq!(tasks.take_list(), seeds(&later));
            assert!(tasks.is_empty());
        }
    }

    #[test]
    fn what_was_there_goes_when_one_is_set_or_all_are_cleared() {
        for nodes in [&[][..], &[3], &[3, 5]] {
            let mut tasks = Tasks::from(seeds(nodes));
            tasks.set_only(Seed { node: 8, send: None });
            assert_eq!(&*tasks, seeds(&[8]));
            tasks.set_node(9);
            assert_eq!(&*tasks, seeds(&[9]));
            let mut tasks = Tasks::from(seeds(nodes));
            tasks.clear();
            assert!(tasks.is_empty() && tasks.take_list().is_empty());
        }
    }
}
