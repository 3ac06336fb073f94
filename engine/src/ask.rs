//! Questions that a node puts to a person, and their answers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

/// A question with an answer type of its own, put by [`Context::ask`](crate::Context::ask).
///
/// ```
/// use serde::Serialize;
/// use stepgraph::Ask;
///
/// #[derive(Serialize, Ask)]
/// #[ask(name = "review", answer = bool)]
/// struct Review { draft: String }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a question",
    note = "add `#[derive(Ask, Serialize)]` and `#[ask(name = \"..\", answer = ..)]` to `{Self}`"
)]
pub trait Ask: Serialize + Send {
    /// What may be answered.
    type Answer: Serialize + DeserializeOwned + JsonSchema + Send;
    /// Name of the question, unique inside its node.
    const NAME: &'static str;
}

/// A question that a run waits for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Question {
    /// What an answer refers to: the task, its step and the name. Unique on its thread, so that an answer that comes
    /// twice is not taken for the next round's.
    pub id: String,
    /// The node that asks.
    pub node: String,
    /// Name of the question.
    pub name: String,
    /// The question itself.
    pub payload: Value,
    /// JSON schema of the answer.
    pub answer_schema: Value,
    /// Why the last answer was not taken, if one was given.
    pub problem: Option<String>,
}

/// Answers to a thread's open questions.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub enum Answers {
    /// No answer: go on with what needs none.
    #[default]
    None,
    /// The answer to the only open question. `null` is an answer.
    One(Value),
    /// Answers by [`Question::id`]; questions left out stay open.
    Many(Vec<(String, Value)>),
}
