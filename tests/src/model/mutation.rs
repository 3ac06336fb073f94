//! Models that are wrong on purpose: each must be told from the engine, or the comparison proves nothing.

/// One mistake of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mutation {
    /// New items of a list go before the old.
    AppendsInFront,
    /// Of two numbers the smaller stays.
    KeepsTheSmaller,
    /// The updates of a step apply in the order of names backwards.
    MergesBackwards,
    /// A join leads on although one of its sources is missing.
    JoinsEarly,
    /// A join that has led on does not begin anew.
    JoinsOnce,
    /// A deferred node runs as soon as it is triggered.
    DefersNothing,
    /// A branch sees what the siblings of its node have written.
    RoutesByAll,
    /// A node's own destinations take the place of its edges.
    GoesInstead,
    /// A node that two have triggered runs twice.
    RunsTwice,
    /// One step more is allowed than the limit says.
    CountsOneStepMore,
    /// A resumed run stops once more at the breakpoint where it has stopped.
    StopsAgain,
    /// What has finished beside a failure runs again.
    ForgetsFinished,
    /// A question that was not answered is put again.
    AsksAgain,
    /// There is one attempt less than the policy says.
    TriesLess,
    /// An item that is skipped when it fails fails its run.
    FailsForItems,
    /// An edit keeps what was to run before it.
    EditsBeside,
    /// A rerun keeps the results of the step that it begins with.
    RerunsWithRecords,
    /// New input drops what had finished, whatever it was told.
    CommitsNothing,
    /// A value set outright is merged like any other.
    OverwritesNothing,
    /// A graph inside a node begins with nothing of the state around it.
    HostsWithoutInput,
}

impl Mutation {
    /// Every one of them.
    pub const ALL: [Self; 20] = [
        Self::AppendsInFront,
        Self::KeepsTheSmaller,
        Self::MergesBackwards,
        Self::JoinsEarly,
        Self::JoinsOnce,
        Self::DefersNothing,
        Self::RoutesByAll,
        Self::GoesInstead,
        Self::RunsTwice,
        Self::CountsOneStepMore,
        Self::StopsAgain,
        Self::ForgetsFinished,
        Self::AsksAgain,
        Self::TriesLess,
        Self::FailsForItems,
        Self::EditsBeside,
        Self::RerunsWithRecords,
        Self::CommitsNothing,
        Self::OverwritesNothing,
        Self::HostsWithoutInput,
    ];
}
