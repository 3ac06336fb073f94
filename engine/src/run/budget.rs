//! Budgets: how much a run may spend, and what becomes of one that has spent more.
//!
//! What a node spends belongs to its task's output: it counts when the output does, once, however often the task was
//! entered. The sum is kept with each checkpoint.

use std::{
    fmt,
    iter::Sum,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
};

use schemars::{JsonSchema, schema_for};
use serde::{Deserialize, Serialize};

use super::{
    Outcome,
    driver::{Driver, RunEnd},
    error::RunError,
    event::EventKind,
    plan::{Seed, Waiting},
    step::End,
    suspend::question_records,
};
use crate::{
    ask::{Ask, Question},
    checkpoint::{Commit, RunStatus},
    graph::{Graph, Payload},
    node::{Context, TaskContext},
    state::State,
};

/// What a node has spent, for [`Context::spend`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spend {
    /// Tokens of models.
    #[serde(default)]
    pub tokens: u64,
    /// Cost, in millionths of whatever money is counted in.
    #[serde(default)]
    pub cost_micros: u64,
}

impl Spend {
    pub(crate) const NOTHING: Self = Self {
        tokens: 0,
        cost_micros: 0,
    };

    #[inline]
    pub(crate) const fn is_nothing(&self) -> bool {
        self.tokens == 0 && self.cost_micros == 0
    }

    fn add(&mut self, more: Self) {
        self.tokens = self.tokens.saturating_add(more.tokens);
        self.cost_micros = self.cost_micros.saturating_add(more.cost_micros);
    }
}

impl Sum for Spend {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |mut sum, more| {
            sum.add(more);
            sum
        })
    }
}

/// What a run has spent since its input came.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Spent {
    /// Tokens of models.
    #[serde(default)]
    pub tokens: u64,
    /// Cost, in millionths of whatever money is counted in.
    #[serde(default)]
    pub cost_micros: u64,
    /// Steps.
    #[serde(default)]
    pub steps: u64,
}

impl fmt::Display for Spent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            tokens,
            cost_micros,
            steps,
        } = self;
        write!(
            f,
            "{tokens} token(s), a cost of {cost_micros} millionths and {steps} step(s)"
        )
    }
}

/// How much a run may spend. Looked at between steps: what a step spends is spent.
///
/// ```
/// use stepgraph::{Budget, OnBudget};
///
/// let budget = Budget::tokens(50_000).and(Budget::cost_micros(200_000)).then(OnBudget::Ask);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Budget {
    limits: RaiseBudget,
    on: OnBudget,
}

/// What becomes of a run that has spent more than its budget and has tasks left.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnBudget {
    /// It ends with [`RunError::Budget`], and can be resumed with a larger budget.
    #[default]
    Stop,
    /// It asks [`OverBudget`] and goes on when the budget is raised.
    Ask,
    /// It goes to the node that the graph has named by `on_budget`, instead of what was next, and on from there without a
    /// budget. A graph inside that has named none runs to its end first.
    Route,
}

impl Budget {
    const fn of(limits: RaiseBudget) -> Self {
        Self {
            limits,
            on: OnBudget::Stop,
        }
    }

    /// So many tokens.
    pub const fn tokens(tokens: u64) -> Self {
        Self::of(RaiseBudget {
            tokens: Some(tokens),
            cost_micros: None,
            steps: None,
        })
    }

    /// So much money, in millionths.
    pub const fn cost_micros(cost_micros: u64) -> Self {
        Self::of(RaiseBudget {
            tokens: None,
            cost_micros: Some(cost_micros),
            steps: None,
        })
    }

    /// So many steps from the input on, however often the run is resumed; a step limit counts anew each time.
    pub const fn steps(steps: u64) -> Self {
        Self::of(RaiseBudget {
            tokens: None,
            cost_micros: None,
            steps: Some(steps),
        })
    }

    /// Both limits; the smaller one where both have one.
    pub fn and(mut self, other: Self) -> Self {
        let smaller = |one: Option<u64>, other: Option<u64>| one.into_iter().chain(other).min();
        self.limits = RaiseBudget {
            tokens: smaller(self.limits.tokens, other.limits.tokens),
            cost_micros: smaller(self.limits.cost_micros, other.limits.cost_micros),
            steps: smaller(self.limits.steps, other.limits.steps),
        };
        self
    }

    /// What becomes of a run that has spent more; [`OnBudget::Stop`] unless told.
    pub const fn then(mut self, on: OnBudget) -> Self {
        self.on = on;
        self
    }

    pub(super) fn routes(&self) -> bool {
        self.on == OnBudget::Route
    }

    /// What is left of it for a graph inside, whose steps are its own.
    fn rest(self, spent: Spent, on: OnBudget) -> Self {
        let left = |limit: Option<u64>, spent: u64| limit.map(|limit| limit.saturating_sub(spent));
        Self {
            limits: RaiseBudget {
                tokens: left(self.limits.tokens, spent.tokens),
                cost_micros: left(self.limits.cost_micros, spent.cost_micros),
                steps: None,
            },
            on,
        }
    }
}

/// What a person is asked when a run has spent its budget.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct OverBudget {
    /// What the run has spent.
    pub spent: Spent,
    /// What it might have spent.
    pub budget: RaiseBudget,
}

impl Ask for OverBudget {
    type Answer = RaiseBudget;
    const NAME: &'static str = "over_budget";
}

/// Limits of a budget; as the answer to [`OverBudget`], what they are raised to. Absent ones are left as they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RaiseBudget {
    /// Tokens of models.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// Cost, in millionths of whatever money is counted in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_micros: Option<u64>,
    /// Steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<u64>,
}

impl RaiseBudget {
    /// The larger limit of each kind. What has none stays without.
    fn raise(&mut self, to: Self) {
        let larger = |from: &mut Option<u64>, to: Option<u64>| {
            if let (Some(from), Some(to)) = (from.as_mut(), to) {
                *from = (*from).max(to);
            }
        };
        larger(&mut self.tokens, to.tokens);
        larger(&mut self.cost_micros, to.cost_micros);
        larger(&mut self.steps, to.steps);
    }

    /// The larger of two answers.
    fn join(&mut self, other: Self) {
        self.tokens = self.tokens.max(other.tokens);
        self.cost_micros = self.cost_micros.max(other.cost_micros);
        self.steps = self.steps.max(other.steps);
    }

    fn is_exceeded(&self, spent: Spent) -> bool {
        let over = |limit: Option<u64>, spent: u64| limit.is_some_and(|limit| spent > limit);
        over(self.tokens, spent.tokens) || over(self.cost_micros, spent.cost_micros) || over(self.steps, spent.steps)
    }
}

impl fmt::Display for RaiseBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds = [
            (self.tokens, "token(s)"),
            (self.cost_micros, "millionths of cost"),
            (self.steps, "step(s)"),
        ];
        let limits = kinds
            .iter()
            .filter_map(|(limit, kind)| limit.map(|limit| format!("{limit} {kind}")));
        f.write_str(&limits.collect::<Vec<_>>().join(", "))
    }
}

/// What a checkpoint keeps of a run's spending.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Account {
    #[serde(default)]
    pub(crate) spent: Spent,
    /// What the budget was raised to by answers.
    #[serde(default)]
    raised: RaiseBudget,
    /// Whether the run has gone to the graph's node for this: it has no budget any more.
    #[serde(default)]
    routed: bool,
}

impl Account {
    /// Whether the run has gone to the graph's node for a spent budget.
    pub(super) const fn is_routed(&self) -> bool {
        self.routed
    }

    /// Whether there is nothing to keep.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What tasks read of their run's spending and leave in it.
#[derive(Default)]
pub(crate) struct Meter {
    tokens: AtomicU64,
    cost_micros: AtomicU64,
    steps: AtomicU64,
    steps_left: AtomicU32,
    budget: Mutex<Option<Budget>>,
    /// Whether `running` is worth a look.
    used: AtomicBool,
    /// What the tasks under way have spent.
    running: Mutex<Vec<(usize, Option<u32>, Spend)>>,
}

impl Meter {
    #[inline]
    pub(super) fn of(budget: Option<Budget>) -> Self {
        Self {
            budget: Mutex::new(budget),
            ..Self::default()
        }
    }

    fn spent(&self) -> Spent {
        Spent {
            tokens: self.tokens.load(Ordering::Relaxed),
            cost_micros: self.cost_micros.load(Ordering::Relaxed),
            steps: self.steps.load(Ordering::Relaxed),
        }
    }

    #[inline]
    fn show(&self, spent: Spent) {
        self.tokens.store(spent.tokens, Ordering::Relaxed);
        self.cost_micros.store(spent.cost_micros, Ordering::Relaxed);
        self.steps.store(spent.steps, Ordering::Relaxed);
    }

    /// So many steps are merged, and nothing was spent.
    pub(super) fn show_steps(&self, merged: u64) {
        self.steps.store(merged, Ordering::Relaxed);
    }

    #[inline]
    pub(super) fn show_steps_left(&self, steps: u32) {
        self.steps_left.store(steps, Ordering::Relaxed);
    }

    fn add(&self, node: usize, send: Option<u32>, more: Spend) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        self.used.store(true, Ordering::Relaxed);
        match running.iter_mut().find(|(at, nth, _)| (*at, *nth) == (node, send)) {
            Some((_, _, sum)) => sum.add(more),
            None => running.push((node, send, more)),
        }
    }

    fn running(&self, node: usize, send: Option<u32>) -> Spend {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let own = running.iter().find(|(at, nth, _)| (*at, *nth) == (node, send));
        own.map(|(_, _, spend)| *spend).unwrap_or_default()
    }

    fn take(&self, node: usize, send: Option<u32>) -> Spend {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let own = running.iter().position(|(at, nth, _)| (*at, *nth) == (node, send));
        own.map(|own| running.swap_remove(own).2).unwrap_or_default()
    }
}

impl TaskContext {
    fn spend(&self, spend: Spend) {
        self.run.meter.add(self.node, self.send, spend);
    }

    /// What the run had spent before this step, and this task since it was entered.
    fn spent(&self) -> Spent {
        let mut spent = self.run.meter.spent();
        let own = self.run.meter.running(self.node, self.send);
        spent.tokens = spent.tokens.saturating_add(own.tokens);
        spent.cost_micros = spent.cost_micros.saturating_add(own.cost_micros);
        spent
    }

    /// What is left of the run's budget for a graph inside this task.
    pub(super) fn budget_inside<S: State>(&self, graph: &Graph<S>) -> Option<Budget> {
        let budget = (*self.run.meter.budget.lock().unwrap_or_else(PoisonError::into_inner))?;
        let on = match (budget.on, graph.parts.on_budget) {
            (OnBudget::Stop | OnBudget::Ask, _) => OnBudget::Stop,
            (OnBudget::Route, Some(_)) => OnBudget::Route,
            (OnBudget::Route, None) => return None,
        };
        Some(budget.rest(self.spent(), on))
    }
}

impl<E: Send + 'static> Context<E> {
    /// Notes that this task has spent something. It counts with the task's output, once: an entry that ends without one
    /// (it asks, fails or is cut off) leaves nothing; the attempts of one entry count together.
    ///
    /// ```no_run
    /// # use stepgraph::{Context, NodeError, Spend};
    /// # async fn node(ctx: Context<()>) -> Result<(), NodeError> {
    /// ctx.spend(Spend { tokens: 812, cost_micros: 2_400 });
    /// # Ok(()) }
    /// ```
    pub fn spend(&self, spend: Spend) {
        self.task.spend(spend);
    }

    /// What the run had spent before this step, and this task since it was entered. A graph inside counts its own.
    #[must_use]
    pub fn spent(&self) -> Spent {
        self.task.spent()
    }

    /// How many steps the run may take after this one before its step limit ends it.
    #[must_use]
    pub fn steps_left(&self) -> u32 {
        self.task.run.meter.steps_left.load(Ordering::Relaxed)
    }
}

impl<S: State> Driver<S> {
    /// Puts what a task has spent into its output; without one it is forgotten.
    pub(super) fn bill(&self, task: &Seed<Payload>, end: &mut End<S>) {
        let spend = self.spent_by(task);
        if let (Some(spend), End::Output(output)) = (spend, end) {
            output.spend = spend;
        }
    }

    /// What a task has spent; `None` if nothing was spent in the run.
    pub(super) fn spent_by(&self, task: &Seed<Payload>) -> Option<Spend> {
        let meter = &self.shared.run.meter;
        let used = meter.used.load(Ordering::Relaxed);
        used.then(|| meter.take(task.node, task.send.as_ref().map(|(number, _)| *number)))
    }

    /// Adds what a step has spent, once it is merged.
    pub(super) fn book(&mut self, more: Spend) {
        let spent = &mut self.account.spent;
        spent.tokens = spent.tokens.saturating_add(more.tokens);
        spent.cost_micros = spent.cost_micros.saturating_add(more.cost_micros);
        spent.steps = spent.steps.saturating_add(1);
        self.shared.run.meter.show(*spent);
    }

    /// What a checkpoint keeps: steps alone only where they are counted for something.
    pub(super) fn account(&self) -> Account {
        let account = self.account;
        if self.budget.is_none() && account.spent.tokens == 0 && account.spent.cost_micros == 0 {
            return Account {
                spent: Spent::default(),
                ..account
            };
        }
        account
    }

    /// Goes on with the account of a run that is resumed, and with what its budget was raised to.
    pub(super) fn open_account(&mut self, account: Account) {
        self.account = account;
        let answer = self.shared.run.journal.answer("", OverBudget::NAME);
        if let Some(Ok(raise)) = answer.map(serde_json::from_value::<RaiseBudget>) {
            self.account.raised.join(raise);
        }
        self.shared.run.meter.show(self.account.spent);
        self.set_budget(self.budget);
    }

    /// Sets the budget, as far as it was raised.
    pub(super) fn set_budget(&mut self, budget: Option<Budget>) {
        self.budget = budget.map(|mut budget| {
            budget.limits.raise(self.account.raised);
            budget
        });
        let shown = self.budget.filter(|_| !self.account.routed);
        *self
            .shared
            .run
            .meter
            .budget
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = shown;
    }

    /// The budget, if the run has spent more.
    fn exceeded(&self) -> Option<Budget> {
        let exceeded = |budget: &Budget| !self.account.routed && budget.limits.is_exceeded(self.account.spent);
        self.budget.filter(exceeded)
    }

    /// Goes to the graph's node for it, instead of what was next, if the run has spent more than its budget.
    pub(super) fn reroute(&mut self) -> bool {
        let routes = self.exceeded().is_some_and(|budget| budget.routes());
        routes && self.go_to_budget_node()
    }

    /// Goes to the graph's node for a spent budget instead of what is next, if it has one and something is.
    pub(super) fn go_to_budget_node(&mut self) -> bool {
        let Some(node) = self.shared.parts.on_budget.filter(|_| !self.tasks.is_empty()) else {
            return false;
        };
        self.tasks.set_node(node);
        self.waiting = Waiting::new(&self.shared.parts.topology);
        self.account.routed = true;
        self.set_budget(self.budget);
        true
    }

    /// Ends a run that has spent more than its budget; `None` if it goes on.
    pub(super) async fn check_budget(&mut self) -> Result<Option<RunEnd<S>>, RunError> {
        let Some(budget) = self.exceeded() else {
            return Ok(None);
        };
        match budget.on {
            OnBudget::Stop => {
                let error = self.over_budget(self.account.spent);
                Err(self.give_up(RunStatus::Stopped, Vec::new(), error).await)
            }
            OnBudget::Ask => {
                let question = self.budget_question(self.account.spent);
                self.commit(Commit {
                    records: question_records("", std::slice::from_ref(&question)),
                    run: Some(self.mark(RunStatus::Asked, None)),
                    ..Commit::default()
                })
                .await?;
                let asked = EventKind::Asked {
                    question: question.clone(),
                };
                self.shared.tell(asked).await;
                Ok(Some(RunEnd::Outcome(Outcome::Asked(vec![question]))))
            }
            OnBudget::Route => {
                // The budget is smaller than it was when this step was planned.
                if self.reroute() {
                    self.save(crate::checkpoint::CheckpointSource::Update, None, Vec::new())
                        .await?;
                }
                Ok(None)
            }
        }
    }

    pub(super) fn over_budget(&self, spent: Spent) -> RunError {
        RunError::Budget {
            thread: Box::new(self.shared.run.key.clone()),
            spent,
            budget: self.budget.map(|budget| budget.limits).unwrap_or_default(),
        }
    }

    /// Whether a person is asked when the budget is spent.
    pub(super) fn asks_for_more(&self) -> bool {
        self.budget.is_some_and(|budget| budget.on == OnBudget::Ask)
    }

    /// What this run has spent together with a graph inside, as its error tells.
    pub(super) fn spent_with(&self, inside: &RunError) -> Spent {
        let mut spent = self.account.spent;
        if let RunError::Budget { spent: inner, .. } = inside {
            spent.tokens = spent.tokens.saturating_add(inner.tokens);
            spent.cost_micros = spent.cost_micros.saturating_add(inner.cost_micros);
        }
        spent
    }

    /// The question of a run, not of a task.
    pub(super) fn budget_question(&self, spent: Spent) -> Question {
        let budget = self.budget.map(|budget| budget.limits).unwrap_or_default();
        let asked = OverBudget { spent, budget };
        let answered = self.shared.run.journal.answer("", OverBudget::NAME).is_some();
        Question {
            id: format!("@{}/{}", self.shared.step, OverBudget::NAME),
            node: String::new(),
            name: OverBudget::NAME.to_owned(),
            payload: serde_json::to_value(&asked).unwrap_or_default(),
            answer_schema: schema_for!(RaiseBudget).to_value(),
            problem: answered.then(|| format!("the answer does not raise the budget above {spent}")),
        }
    }

    /// Lets what this run has spent count for the one around it.
    pub(super) fn bill_outer(&self) {
        if let Some(outer) = &self.shared.run.outer {
            let Spent {
                tokens, cost_micros, ..
            } = self.account.spent;
            outer.spend(Spend { tokens, cost_micros });
        }
    }
}
