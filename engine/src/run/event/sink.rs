//! Where the driver and the nodes of a run put its events.

use std::{borrow::Cow, sync::Arc};

use super::{EventKind, EventSender, Extra, Inside, Path, Shared};
use crate::{
    node::{Emit, Emitter},
    state::State,
};

/// What a reader has asked for beside the rest.
#[derive(Debug, Clone, Copy, Default)]
#[expect(clippy::struct_excessive_bools, reason = "one for each extra, asked one by one")]
pub(crate) struct Hears {
    values: bool,
    checkpoints: bool,
    payloads: bool,
    pub(crate) inside: bool,
}

impl Hears {
    pub(super) const fn with(mut self, extra: Extra) -> Self {
        match extra {
            Extra::Values => self.values = true,
            Extra::Checkpoints => self.checkpoints = true,
            Extra::Payloads => self.payloads = true,
            Extra::Inside => self.inside = true,
        }
        self
    }
}

/// Where the driver puts a run's events, if anybody listens.
pub(crate) enum Sink<S: State> {
    Nobody,
    Reader {
        shared: Arc<Shared<S>>,
        hears: Hears,
    },
    /// The run of a graph inside a node: what happens in it happens inside the node.
    Host(Emitter<S::Event>),
}

impl<S: State> Clone for Sink<S> {
    fn clone(&self) -> Self {
        match self {
            Self::Nobody => Self::Nobody,
            Self::Reader { shared, hears } => Self::Reader {
                shared: Arc::clone(shared),
                hears: *hears,
            },
            Self::Host(emitter) => Self::Host(emitter.clone()),
        }
    }
}

impl<S: State> Sink<S> {
    pub(crate) fn of(sender: Option<EventSender<S>>) -> Self {
        sender.map_or(Self::Nobody, |sender| Self::Reader {
            shared: sender.shared,
            hears: sender.hears,
        })
    }

    /// Whether anybody hears more than what nodes emit.
    pub(crate) fn is_heard(&self) -> bool {
        match self {
            Self::Nobody => false,
            Self::Reader { .. } => true,
            Self::Host(_) => self.hears().inside,
        }
    }

    pub(crate) fn hears_values(&self) -> bool {
        self.is_heard() && self.hears().values
    }

    pub(crate) fn hears_checkpoints(&self) -> bool {
        self.is_heard() && self.hears().checkpoints
    }

    pub(crate) fn hears_payloads(&self) -> bool {
        self.is_heard() && self.hears().payloads
    }

    fn hears(&self) -> Hears {
        match self {
            Self::Nobody => Hears::default(),
            Self::Reader { hears, .. } => *hears,
            Self::Host(emitter) => emitter.out.hears(),
        }
    }

    /// Sends an event, waiting for room.
    pub(crate) async fn send(&self, kind: EventKind<S>) {
        match self {
            Self::Nobody => {}
            Self::Reader { shared, .. } => {
                if let Ok(permit) = shared.gate.acquire().await {
                    permit.forget();
                    shared.send(Path::default(), kind);
                }
            }
            Self::Host(emitter) => {
                if let Some(inside) = Inside::of(kind)
                    && let Ok(permit) = emitter.gate.acquire().await
                {
                    permit.forget();
                    emitter.out.send_inside(Vec::new(), inside);
                }
            }
        }
    }

    /// The way out for what nodes emit.
    pub(crate) fn emitter(&self) -> Option<Emitter<S::Event>> {
        match self {
            Self::Nobody => None,
            Self::Reader { shared, hears } => Some(Emitter {
                gate: Arc::clone(&shared.gate),
                out: Arc::new(Root {
                    shared: Arc::clone(shared),
                    hears: *hears,
                }),
            }),
            Self::Host(emitter) => Some(emitter.clone()),
        }
    }
}

struct Root<S: State> {
    shared: Arc<Shared<S>>,
    hears: Hears,
}

impl<S: State> Emit<S::Event> for Root<S> {
    fn send(&self, node: Cow<'static, str>, event: S::Event) {
        self.shared.send(Path::default(), EventKind::Custom { node, event });
    }

    fn send_inside(&self, mut hosts: Vec<Cow<'static, str>>, inside: Inside<S::Event>) {
        // Each host has put its own name behind those inside it.
        hosts.reverse();
        let kind = match inside {
            Inside::Custom { node, event } => EventKind::Custom { node, event },
            Inside::Kind(kind) => EventKind::Inside(kind),
        };
        self.shared.send(Path::of(hosts), kind);
    }

    fn hears(&self) -> Hears {
        self.hears
    }
}
