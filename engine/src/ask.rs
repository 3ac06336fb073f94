//! Questions that a node puts to someone outside the graph.

use serde::{Serialize, de::DeserializeOwned};

/// A question with the type of its answer. Write it by `#[derive(Ask)]`:
///
/// ```
/// use serde::Serialize;
/// use stepgraph::Ask;
///
/// #[derive(Ask, Serialize)]
/// #[ask(name = "review", answer = bool)]
/// struct Review {
///     draft: String,
/// }
///
/// assert_eq!(Review::NAME, "review");
/// let answer: <Review as Ask>::Answer = true;
/// # let _ = (answer, Review { draft: String::new() }.draft);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a question",
    note = "add `#[derive(Ask, Serialize)]` and `#[ask(name = \"..\", answer = ..)]` to `{Self}`"
)]
pub trait Ask: Serialize + Send {
    /// What is answered; its JSON schema is shown with the question.
    type Answer: Serialize + DeserializeOwned + schemars::JsonSchema + Send;

    /// Name of the question in records and over HTTP.
    const NAME: &'static str;
}
