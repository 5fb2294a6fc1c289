//! Changes by cause, counted so that sums do not depend on who counted what.

use std::collections::BTreeMap;

use super::report::{
    Category, Comparison, Example, FuelChange, Group, GroupKey, MAX_FIELDS, MAX_KINDS, OTHER,
    Summary,
};
use super::tally::{absorb_option, cut_costly, has_digit};
use crate::compare::Change;

/// Changes by cause.
#[derive(Debug, Default)]
pub(super) struct Groups {
    compared: u64,
    categories: BTreeMap<Category, u64>,
    pub(super) groups: BTreeMap<GroupKey, Group>,
    pub(super) fuel: Option<FuelChange>,
}

impl Groups {
    pub(super) fn unchanged(&mut self) {
        self.compared += 1;
        *self.categories.entry(Category::Unchanged).or_default() += 1;
    }

    /// Counts a change in its group, with the fields as they are shown.
    pub(super) fn changed(
        &mut self,
        change: &Change,
        fields: Vec<String>,
        examples: usize,
    ) -> &mut Group {
        self.compared += 1;
        *self.categories.entry(change.category).or_default() += 1;
        let from = Some(change.from.clone());
        let group = new_group(change.category, from, change.to.clone(), fields);
        self.count(group, (MAX_KINDS, examples))
    }

    /// Counts a fault that is compared with nothing.
    pub(super) fn fault(&mut self, to: Summary, examples: usize) -> &mut Group {
        let group = new_group(Category::Faulted, None, to, Vec::new());
        self.count(group, (MAX_KINDS, examples))
    }

    /// Counts one more in a group. Where that makes too many of them it is in
    /// the one for all others.
    pub(super) fn count(&mut self, group: Group, limits: (usize, usize)) -> &mut Group {
        let (key, category) = (group.key(), group.category);
        let fields = group.fields.clone();
        if !self.groups.contains_key(&key) {
            self.groups.insert(key.clone(), group);
            self.cut(limits);
        }
        let home = if self.groups.contains_key(&key) {
            key
        } else {
            other(category).key()
        };
        let group = self.groups.entry(home);
        let group = group.or_insert_with(|| other(category));
        group.count += 1;
        group.list(fields);
        group
    }

    /// Keeps so many groups apart, as [`cut_words`] does words, with so many
    /// examples of each.
    pub(super) fn cut(&mut self, (most, examples): (usize, usize)) {
        if self.groups.len() <= most {
            return;
        }
        let others = self.groups.values().filter(|group| group.is_other());
        let mut apart = self.groups.len() - others.count();
        while apart > most {
            let groups = || self.groups.iter().rev().filter(|(_, it)| !it.is_other());
            let mentions_digits = |group: &Group| group.to.tags.iter().any(|tag| has_digit(tag));
            let last = groups().find(|(_, group)| mentions_digits(group));
            let Some(key) = last.or_else(|| groups().next()).map(|(key, _)| key.clone()) else {
                return;
            };
            if let Some(group) = self.groups.remove(&key) {
                let other = other(group.category);
                let into = self.groups.entry(other.key()).or_insert(other);
                into.absorb(group, examples);
            }
            apart -= 1;
        }
    }

    pub(super) fn absorb(&mut self, other: Self, examples: usize) {
        self.compared += other.compared;
        for (category, count) in other.categories {
            *self.categories.entry(category).or_default() += count;
        }
        for (key, group) in other.groups {
            match self.groups.get_mut(&key) {
                None => {
                    self.groups.insert(key, group);
                }
                Some(into) => into.absorb(group, examples),
            }
            self.cut((MAX_KINDS, examples));
        }
        absorb_option(&mut self.fuel, other.fuel, |into, from| {
            into.old += from.old;
            into.new += from.new;
            into.equal += from.equal;
            into.more += from.more;
            into.less += from.less;
            into.increases.extend(from.increases);
            cut_costly(&mut into.increases);
        });
    }

    pub(super) fn of(comparison: Comparison) -> Self {
        Self {
            compared: comparison.compared,
            categories: comparison.categories,
            groups: comparison
                .groups
                .into_iter()
                .map(|group| (group.key(), group))
                .collect(),
            fuel: comparison.fuel,
        }
    }

    pub(super) fn comparison(self) -> Comparison {
        let mut groups: Vec<Group> = self.groups.into_values().collect();
        groups.sort_by(|a, b| {
            let grave = |group: &Group| {
                let allowed = group.from.as_ref().is_none_or(|from| {
                    from.decision != "allow" && !from.decision.starts_with("ok")
                });
                (group.category, allowed)
            };
            grave(a)
                .cmp(&grave(b))
                .then(b.count.cmp(&a.count))
                .then_with(|| a.key().cmp(&b.key()))
        });
        Comparison {
            compared: self.compared,
            categories: self.categories,
            groups,
            fuel: self.fuel,
        }
    }
}

/// The group of all that are not kept apart.
fn other(category: Category) -> Group {
    let to = Summary {
        decision: OTHER.to_owned(),
        tags: Vec::new(),
        rule_ids: Vec::new(),
        fault: None,
    };
    new_group(category, None, to, Vec::new())
}

pub(super) fn new_group(
    category: Category,
    from: Option<Summary>,
    to: Summary,
    fields: Vec<String>,
) -> Group {
    Group {
        category,
        from,
        to,
        fields,
        count: 0,
        examples: Vec::new(),
    }
}

impl Group {
    fn is_other(&self) -> bool {
        self.from.is_none() && self.to.decision == OTHER
    }

    pub(super) fn absorb(&mut self, other: Self, examples: usize) {
        self.count += other.count;
        self.list(other.fields);
        self.keep(other.examples, examples);
    }

    /// Lists where its transactions differ: the first ones by name.
    fn list(&mut self, fields: Vec<String>) {
        if !self.is_by_fields() {
            self.fields.extend(fields);
            self.fields.sort();
            self.fields.dedup();
            self.fields.truncate(MAX_FIELDS);
        }
    }

    /// Whether an example at this position is wanted.
    pub(super) fn wants(&self, seq: u64, most: usize) -> bool {
        self.examples.len() < most || self.examples.last().is_some_and(|last| seq < last.seq)
    }

    /// Keeps the first of its examples and of these.
    pub(super) fn keep(&mut self, more: impl IntoIterator<Item = Example>, most: usize) {
        self.examples.extend(more);
        self.examples.sort_by_key(|example| example.seq);
        self.examples.truncate(most);
    }
}
