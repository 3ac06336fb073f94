//! Runs, steps and nodes within the layers of their graph. Without layers none of this is entered.

use std::{future::Future, panic::AssertUnwindSafe, pin::pin, sync::Arc};

use futures_util::{FutureExt, future::FusedFuture};

use super::{
    driver::{Driver, RunEnd, StepEnd},
    error::RunError,
    step::{Shared, panic_message},
};
use crate::{
    checkpoint::Seq,
    graph::{NodeSpec, Output, Payload},
    id::ThreadKey,
    layer::{Layer, Next, RunInfo, Scope, StepInfo, TaskInfo, Whole},
    node::{Context, LazyContext, NodeError},
    scrub::told,
    state::State,
};

/// A run within its layers.
pub(crate) async fn drive<S: State>(driver: Box<Driver<S>>) -> Result<RunEnd<S>, RunError> {
    if driver.shared.run.setting.layers.is_empty() {
        return driver.drive().await;
    }
    let layers = Arc::clone(&driver.shared.run.setting.layers);
    let (info, place) = (run_info(&driver.shared), place(&driver));
    Box::pin(whole(&layers, Scope::Run(&info), place, driver.drive())).await
}

/// A step within its layers.
pub(super) async fn superstep<S: State>(driver: &mut Driver<S>) -> Result<StepEnd, RunError> {
    let layers = Arc::clone(&driver.shared.run.setting.layers);
    let info = StepInfo {
        run: run_info(&driver.shared),
        step: driver.shared.step + 1,
        tasks: driver.tasks.len(),
    };
    let place = Place {
        step: info.step,
        ..place(driver)
    };
    Box::pin(whole(&layers, Scope::Step(&info), place, driver.superstep())).await
}

/// A node within its layers: what it gives, and how it stops, goes past them.
pub(super) async fn call<S: State>(
    shared: &Shared<S>,
    spec: &NodeSpec<S>,
    payload: Option<&Payload>,
    ctx: Context<S::Event>,
) -> Result<Output<S>, NodeError> {
    let info = TaskInfo {
        run: run_info(shared),
        step: ctx.task.step,
        node: ctx.task.node_name(),
        task: ctx.task.id(),
        attempt: ctx.task.attempt,
    };
    let mut gave = None;
    let result = {
        let node = pin!(async {
            let running = (spec.call)(&shared.state, payload, LazyContext(&|| ctx.clone()));
            match running.await {
                Ok(output) => {
                    gave = Some(Ok(output));
                    Ok(())
                }
                Err(error) => match error.shadow() {
                    Some(shadow) => {
                        gave = Some(Err(error));
                        Err(shadow)
                    }
                    None => Err(error),
                },
            }
        });
        Next::new(&shared.run.setting.layers, &info, node).run().await
    };
    match (gave, result) {
        (Some(Err(stopped)), _) => Err(stopped),
        (_, Err(error)) => Err(error),
        (Some(output), Ok(_)) => output,
        (None, Ok(_)) => Err(NodeError::terminal("a layer passed on what another node had given")),
    }
}

fn run_info<S: State>(shared: &Shared<S>) -> RunInfo {
    RunInfo {
        graph: shared.parts.topology.graph.clone(),
        thread: shared.run.key.clone(),
        run: shared.run.run_id(),
    }
}

/// Where a run is, for what a layer's panic says.
struct Place {
    step: i64,
    thread: ThreadKey,
    checkpoint: Option<Seq>,
}

fn place<S: State>(driver: &Driver<S>) -> Place {
    Place {
        step: driver.shared.step,
        thread: driver.shared.run.key.clone(),
        checkpoint: driver.checkpoint(),
    }
}

/// Something within the layers. Whether they pass it on or not, it runs to its end.
async fn whole<T: Send>(
    layers: &[Arc<dyn Layer>],
    scope: Scope<'_>,
    place: Place,
    inner: impl Future<Output = Result<T, RunError>> + Send,
) -> Result<T, RunError> {
    let mut end = None;
    let panic = {
        let mut inner = pin!(async { end = Some(inner.await) }.fuse());
        let layered = Whole::new(layers, scope, inner.as_mut()).run();
        let panic = AssertUnwindSafe(layered).catch_unwind().await.err();
        if panic.is_none() && !inner.is_terminated() {
            inner.await;
        }
        panic
    };
    let message = panic.map(|panic| panic_message(panic.as_ref())).unwrap_or_default();
    if !message.is_empty() {
        tracing::error!(thread = %place.thread, step = place.step, message = told(&message), "a layer panicked");
    }
    // What has come to its end before a layer panicked has come to its end.
    end.unwrap_or_else(|| {
        Err(RunError::Panic {
            doing: "a layer".to_owned(),
            task: None,
            step: place.step,
            thread: Box::new(place.thread),
            checkpoint: place.checkpoint,
            message,
        })
    })
}
