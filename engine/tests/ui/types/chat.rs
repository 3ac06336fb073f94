//! The types of a small chat graph, for the files that make one mistake with them.

use serde::{Deserialize, Serialize};
use stepgraph::prelude::*;

#[derive(Clone, Serialize, Deserialize)]
pub struct Source {
    pub id: String,
}

#[derive(State, Clone, Serialize, Deserialize)]
pub struct Chat {
    #[state(input)]
    pub question: String,
    #[state(input, default = "en".to_owned())]
    pub language: String,
    #[state(per_run, reducer = Append)]
    pub sources: Vec<Source>,
    #[state(reducer = Sum)]
    pub tokens: u64,
    pub answer: Option<String>,
}

#[derive(Route, Clone, Copy)]
pub enum Found {
    Some,
    Nothing,
}

#[derive(Ask, Serialize)]
#[ask(name = "review", answer = bool)]
pub struct Review {
    pub draft: Option<String>,
}
