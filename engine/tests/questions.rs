//! Questions and answers, outside effects that run once, and time that is recorded.
#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test stops at what it did not expect"
)]

mod support {
    pub(crate) mod store;
    pub(crate) mod threads;
}

use std::{
    future::ready,
    num::NonZeroU32,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use rand::Rng;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use stepgraph::{
    Answers, Append, Ask, Context, END, Effect, FromState, Graph, IntoNode, Memory, NodeError, Outcome, Policy,
    Question, Retry, Route, RunError, START, State, Sum, checkpoint::At, to,
};
use support::{store::Watched, threads::thread};

#[derive(State, Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Form {
    #[state(input)]
    draft: String,
    #[state(reducer = Append)]
    log: Vec<String>,
    #[state(reducer = Sum)]
    rounds: u64,
}

#[derive(Serialize, Ask)]
#[ask(name = "review", answer = bool)]
struct Review {
    draft: String,
}

#[derive(Serialize, Ask)]
#[ask(name = "name", answer = Option<String>)]
struct Name;

#[derive(Route, Clone, Copy)]
enum Round {
    Again,
    Enough,
}

type Count = Arc<AtomicUsize>;

fn up(count: &Count) -> usize {
    count.fetch_add(1, Ordering::SeqCst) + 1
}

fn got(count: &Count) -> usize {
    count.load(Ordering::SeqCst)
}

fn draft() -> FormInput {
    FormInput {
        draft: "draft".to_owned(),
    }
}

fn line(text: impl Into<String>) -> FormUpdate {
    Form::update().log([text.into()])
}

fn review(ctx: &Context<()>) -> Result<bool, NodeError> {
    ctx.ask(Review {
        draft: "draft".to_owned(),
    })
}

fn builder_of<M, N>(node: N) -> Graph<Form>
where
    N: IntoNode<Form, M>,
    N::Input: FromState<Form>,
    N::Output: Into<FormUpdate>,
{
    let mut g = Graph::<Form>::builder("form");
    let node = g.node("form", node);
    g.edge(START, node).edge(node, END);
    g.build().unwrap()
}

/// The node `form` asks for a review.
fn reviewing() -> Graph<Form> {
    builder_of(|_: Arc<Form>, ctx: Context<()>| ready(review(&ctx).map(|good| line(format!("good: {good}")))))
        .checkpointer(Memory::new())
}

fn asked(outcome: Outcome<Form>) -> Vec<Question> {
    match outcome {
        Outcome::Asked(questions) => questions,
        other => panic!("{other:?}"),
    }
}

fn log_of(outcome: Outcome<Form>) -> Vec<String> {
    outcome.done().unwrap().log
}

#[tokio::test]
async fn a_question_pauses_the_run_and_its_typed_answer_ends_it() {
    let graph = reviewing();
    let questions = asked(graph.run(&thread("t"), draft()).await.unwrap());
    let [question] = questions.as_slice() else {
        panic!("{questions:?}")
    };
    assert_eq!((question.node.as_str(), question.name.as_str()), ("form", "review"));
    assert_eq!(question.payload, json!({"draft": "draft"}));
    assert_eq!(question.answer_schema["type"], "boolean");
    assert_eq!(question.problem, None);
    let kept = graph.state(&thread("t"), At::Head).await.unwrap().unwrap();
    assert_eq!(kept.questions, questions);
    let outcome = graph.resume(&thread("t")).answer::<Review>(&true).await.unwrap();
    assert_eq!(log_of(outcome), ["good: true"]);
}

#[tokio::test]
async fn null_is_an_answer() {
    let graph = builder_of(|_: Arc<Form>, ctx: Context<()>| {
        ready(
            ctx.ask(Name)
                .map(|name| line(name.unwrap_or_else(|| "nobody".to_owned()))),
        )
    })
    .checkpointer(Memory::new());
    asked(graph.run(&thread("t"), draft()).await.unwrap());
    let outcome = graph
        .resume(&thread("t"))
        .answers(Answers::One(Value::Null))
        .await
        .unwrap();
    assert_eq!(log_of(outcome), ["nobody"]);
}

#[tokio::test]
async fn an_answer_of_the_wrong_type_leaves_the_question_open_and_says_why() {
    let graph = reviewing();
    let first = asked(graph.run(&thread("t"), draft()).await.unwrap());
    for _ in 0..2 {
        let wrong = Answers::One(json!("perhaps"));
        let again = asked(graph.resume(&thread("t")).answers(wrong).await.unwrap());
        assert_eq!((again.len(), &again[0].id), (1, &first[0].id));
        assert!(
            again[0].problem.as_ref().unwrap().contains("expected a boolean"),
            "{again:?}"
        );
    }
    let still = asked(graph.resume(&thread("t")).await.unwrap());
    assert!(still[0].problem.is_some());
    let outcome = graph.resume(&thread("t")).answer::<Review>(&false).await.unwrap();
    assert_eq!(log_of(outcome), ["good: false"]);
}

#[tokio::test]
async fn a_resume_without_an_answer_asks_again() {
    let graph = reviewing();
    let first = asked(graph.run(&thread("t"), draft()).await.unwrap());
    assert_eq!(asked(graph.resume(&thread("t")).await.unwrap()), first);
}

#[tokio::test]
async fn answers_that_fit_no_open_question_are_refused_before_anything_is_written() {
    let store = Watched::default();
    let graph = two_askers().checkpointer(store.clone());
    let open = asked(graph.run(&thread("t"), draft()).await.unwrap());
    let ids: Vec<_> = open.iter().map(|question| question.id.clone()).collect();
    let commits = store.commits();
    let unknown = Answers::Many(vec![(ids[0].clone(), json!(true)), ("else".to_owned(), json!(true))]);
    let error = graph.resume(&thread("t")).answers(unknown).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("there is no open question `else`: open are {ids:?}")
    );
    let error = graph
        .resume(&thread("t"))
        .answers(Answers::One(json!(true)))
        .await
        .unwrap_err();
    assert!(
        matches!(&error, RunError::AmbiguousAnswer { open } if *open == ids),
        "{error}"
    );
    assert_eq!(store.commits(), commits);
    let all = Answers::Many(ids.into_iter().map(|id| (id, json!(true))).collect());
    assert_eq!(
        log_of(graph.resume(&thread("t")).answers(all).await.unwrap()),
        ["a true", "b true"]
    );
    let late = graph
        .resume(&thread("t"))
        .answers(Answers::One(json!(true)))
        .await
        .unwrap_err();
    assert!(
        matches!(&late, RunError::UnknownQuestion { open, .. } if open.is_empty()),
        "{late}"
    );
}

/// `a` and `b` ask side by side.
fn two_askers() -> Graph<Form> {
    let mut g = Graph::<Form>::builder("two");
    for name in ["a", "b"] {
        let node = g.node(name, move |_: Arc<Form>, ctx: Context<()>| {
            ready(review(&ctx).map(|good| line(format!("{name} {good}"))))
        });
        g.edge(START, node).edge(node, END);
    }
    g.build().unwrap()
}

#[tokio::test]
async fn parallel_questions_may_be_answered_one_by_one() {
    let graph = two_askers().checkpointer(Memory::new());
    let open = asked(graph.run(&thread("t"), draft()).await.unwrap());
    let b = Answers::Many(vec![(open[1].id.clone(), json!(false))]);
    let left = asked(graph.resume(&thread("t")).answers(b).await.unwrap());
    assert_eq!(left, open[..1]);
    let outcome = graph.resume(&thread("t")).answer::<Review>(&true).await.unwrap();
    assert_eq!(log_of(outcome), ["a true", "b false"]);
}

#[tokio::test]
async fn workers_ask_each_for_its_own_item() {
    let mut g = Graph::<Form>::builder("workers");
    let work = g.worker("work", |item: u64, ctx: Context<()>| {
        ready(
            ctx.ask(Review {
                draft: item.to_string(),
            })
            .map(|good| line(format!("{item} {good}"))),
        )
    });
    g.fan_out(START, work, |_: &Form| [5_u64, 6]).edge(work, END);
    let graph = g.build().unwrap().checkpointer(Memory::new());
    let open = asked(graph.run(&thread("t"), draft()).await.unwrap());
    let given = open.iter().map(|q| (q.id.clone(), json!(q.payload["draft"] == "6")));
    let outcome = graph
        .resume(&thread("t"))
        .answers(Answers::Many(given.collect()))
        .await
        .unwrap();
    assert_eq!(log_of(outcome), ["5 false", "6 true"]);
}

#[tokio::test]
async fn several_questions_of_one_node_are_asked_one_after_the_other() {
    let entries = Count::default();
    let counted = Arc::clone(&entries);
    let graph = builder_of(move |_: Arc<Form>, ctx: Context<()>| {
        up(&counted);
        async move {
            let good = review(&ctx)?;
            let name = ctx.ask(Name)?;
            let sure: bool = ctx.ask_as(
                "sure",
                Review {
                    draft: "sure".to_owned(),
                },
            )?;
            Ok(line(format!("{good} {name:?} {sure}")))
        }
    })
    .checkpointer(Memory::new());
    let mut outcome = graph.run(&thread("t"), draft()).await.unwrap();
    let mut names = Vec::new();
    for answer in [json!(true), json!("ada"), json!(false)] {
        names.push(asked(outcome)[0].name.clone());
        outcome = graph.resume(&thread("t")).answers(Answers::One(answer)).await.unwrap();
    }
    assert_eq!(names, ["review", "name", "sure"]);
    assert_eq!(log_of(outcome), ["true Some(\"ada\") false"]);
    assert_eq!(got(&entries), 4);
}

#[tokio::test]
async fn a_node_that_swallows_the_error_of_a_question_is_suspended_all_the_same() {
    let graph = builder_of(|_: Arc<Form>, ctx: Context<()>| {
        let answers = [
            review(&ctx).ok(),
            ctx.ask_as("second", Review { draft: String::new() }).ok(),
        ];
        ready(Ok(line(format!("{answers:?}"))))
    })
    .checkpointer(Memory::new());
    let open = asked(graph.run(&thread("t"), draft()).await.unwrap());
    assert_eq!(open.len(), 2);
    let first = Answers::Many(vec![(open[0].id.clone(), json!(true))]);
    assert_eq!(asked(graph.resume(&thread("t")).answers(first).await.unwrap()).len(), 1);
    let outcome = graph.resume(&thread("t")).answer::<Review>(&false).await.unwrap();
    assert_eq!(log_of(outcome), ["[Some(true), Some(false)]"]);
}

#[tokio::test]
async fn a_question_needs_a_checkpointer() {
    let graph = builder_of(|_: Arc<Form>, ctx: Context<()>| ready(review(&ctx).map(|_| line("never"))));
    let error = graph.run(&thread("t"), draft()).await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("cannot be kept: give the graph a checkpointer"),
        "{error}"
    );
}

#[tokio::test]
async fn a_question_asked_again_in_a_loop_takes_no_answer_of_an_earlier_round() {
    let mut g = Graph::<Form>::builder("loop");
    let node = g.node("form", |_: Arc<Form>, ctx: Context<()>| {
        ready(review(&ctx).map(|good| line(format!("{good}")).rounds(1_u64)))
    });
    g.edge(START, node);
    g.branch(
        node,
        |form: &Form| if form.rounds < 2 { Round::Again } else { Round::Enough },
        |round| match round {
            Round::Again => to(node),
            Round::Enough => to(END),
        },
    );
    let graph = g.build().unwrap().checkpointer(Memory::new());
    let first = asked(graph.run(&thread("t"), draft()).await.unwrap());
    let given = || Answers::Many(vec![(first[0].id.clone(), json!(true))]);
    let second = asked(graph.resume(&thread("t")).answers(given()).await.unwrap());
    assert_ne!(first[0].id, second[0].id);
    let twice = graph.resume(&thread("t")).answers(given()).await.unwrap_err();
    assert!(matches!(twice, RunError::UnknownQuestion { .. }), "{twice}");
    let outcome = graph.resume(&thread("t")).answer::<Review>(&false).await.unwrap();
    assert_eq!(log_of(outcome), ["true", "false"]);
}

/// A node that runs one effect, then asks twice.
fn effect_then_questions(effects: &Count) -> Graph<Form> {
    let effects = Arc::clone(effects);
    builder_of(move |_: Arc<Form>, ctx: Context<()>| {
        let effects = Arc::clone(&effects);
        async move {
            let count = || ready(Ok(up(&effects)));
            let number: usize = ctx.once("count", Effect::idempotent(|_| count())).await?;
            let good = review(&ctx)?;
            let name = ctx.ask(Name)?;
            Ok(line(format!("{number} {good} {name:?}")))
        }
    })
}

#[tokio::test]
async fn an_effect_runs_once_however_often_its_node_is_entered() {
    let effects = Count::default();
    let graph = effect_then_questions(&effects).checkpointer(Watched::default());
    asked(graph.run(&thread("t"), draft()).await.unwrap());
    for _ in 0..3 {
        asked(graph.resume(&thread("t")).await.unwrap());
    }
    asked(graph.resume(&thread("t")).answer::<Review>(&true).await.unwrap());
    let outcome = graph.resume(&thread("t")).answer::<Name>(&None).await.unwrap();
    assert_eq!(log_of(outcome), ["1 true None"]);
    assert_eq!(got(&effects), 1);
}

#[tokio::test]
async fn an_effect_is_not_run_again_when_the_step_could_not_be_saved() {
    let (store, effects) = (Watched::default(), Count::default());
    let counted = Arc::clone(&effects);
    let graph = builder_of(move |_: Arc<Form>, ctx: Context<()>| {
        let effects = Arc::clone(&counted);
        async move {
            let number = ctx.once("count", Effect::other(|| ready(Ok(up(&effects))))).await?;
            Ok(line(number.to_string()))
        }
    })
    .checkpointer(store.clone());
    // Admission, intent, effect, then the step's end.
    store.fail_commit_at(4);
    let error = graph.run(&thread("t"), draft()).await.unwrap_err();
    assert_eq!(error.code(), "checkpoint::unavailable");
    assert_eq!(log_of(graph.resume(&thread("t")).await.unwrap()), ["1"]);
    assert_eq!(got(&effects), 1);
}

#[tokio::test]
async fn a_passing_failure_of_an_effect_is_tried_again_and_a_terminal_one_is_recorded() {
    let effects = Count::default();
    let counted = Arc::clone(&effects);
    let graph = builder_of(move |_: Arc<Form>, ctx: Context<()>| {
        let effects = Arc::clone(&counted);
        async move {
            let fails = || {
                ready(match up(&effects) {
                    1 => Err::<u64, _>(NodeError::retryable("busy")),
                    _ => Err(NodeError::terminal("no such customer")),
                })
            };
            let failed = ctx.once("charge", Effect::other(fails)).await.unwrap_err();
            assert_eq!(failed.is_retryable(), failed.to_string() == "busy");
            review(&ctx)?;
            Ok(line(failed.to_string()))
        }
    })
    .checkpointer(Memory::new());
    asked(graph.run(&thread("t"), draft()).await.unwrap());
    assert_eq!(got(&effects), 1);
    // Entered again: the passing failure is not in the journal, the terminal one is from then on.
    graph
        .resume(&thread("t"))
        .answers(Answers::One(json!("wrong")))
        .await
        .unwrap();
    assert_eq!(got(&effects), 2);
    let outcome = graph.resume(&thread("t")).answer::<Review>(&true).await.unwrap();
    assert_eq!(log_of(outcome), ["no such customer"]);
    assert_eq!(got(&effects), 2);
}

#[tokio::test(start_paused = true)]
async fn an_effect_is_retried_inside_its_one_call() {
    let keys = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&keys);
    let graph = builder_of(move |_: Arc<Form>, ctx: Context<()>| {
        let keys = Arc::clone(&kept);
        async move {
            let fails = |key: stepgraph::IdempotencyKey| {
                let mut keys = keys.lock().unwrap();
                keys.push(key.as_str().to_owned());
                ready(if keys.len() < 3 { Err("busy".into()) } else { Ok(1_u64) })
            };
            let retry = Retry::attempts(NonZeroU32::new(3).unwrap());
            ctx.once("charge", Effect::idempotent(fails).retry(retry)).await?;
            Ok(line("charged"))
        }
    })
    .checkpointer(Memory::new());
    assert_eq!(log_of(graph.run(&thread("t"), draft()).await.unwrap()), ["charged"]);
    let keys = keys.lock().unwrap();
    assert_eq!(keys.len(), 3);
    assert!(
        keys.iter().all(|key| *key == keys[0]),
        "one key for every try: {keys:?}"
    );
}

#[tokio::test]
async fn an_effect_in_a_loop_runs_in_every_round_with_and_without_a_store() {
    for kept in [true, false] {
        let effects = Count::default();
        let counted = Arc::clone(&effects);
        let mut g = Graph::<Form>::builder("loop");
        let node = g.node("form", move |_: Arc<Form>, ctx: Context<()>| {
            let effects = Arc::clone(&counted);
            async move {
                let number = ctx.once("count", Effect::other(|| ready(Ok(up(&effects))))).await?;
                Ok(line(number.to_string()).rounds(1_u64))
            }
        });
        g.edge(START, node);
        g.branch(
            node,
            |form: &Form| if form.rounds < 3 { Round::Again } else { Round::Enough },
            |round| match round {
                Round::Again => to(node),
                Round::Enough => to(END),
            },
        );
        let graph = g.build().unwrap();
        let graph = if kept { graph.checkpointer(Memory::new()) } else { graph };
        assert_eq!(log_of(graph.run(&thread("t"), draft()).await.unwrap()), ["1", "2", "3"]);
    }
}

/// The result of an effect is lost the first `lost` times: the store fails right after it.
async fn in_doubt(store: &Watched, graph: &Graph<Form>) -> Vec<Question> {
    // Admission, intent, then the effect's result.
    store.fail_commit_at(3);
    graph.run(&thread("t"), draft()).await.unwrap_err();
    asked(graph.resume(&thread("t")).await.unwrap())
}

fn paying(effects: &Count) -> Graph<Form> {
    let effects = Arc::clone(effects);
    builder_of(move |_: Arc<Form>, ctx: Context<()>| {
        let effects = Arc::clone(&effects);
        async move {
            let number = ctx.once("pay", Effect::other(|| ready(Ok(up(&effects))))).await?;
            Ok(line(format!("paid {number}")))
        }
    })
}

#[tokio::test]
async fn an_effect_in_doubt_is_put_to_a_person_who_may_retry_it_take_it_as_done_or_give_it_up() {
    let answers = [json!("retry"), json!({"done": 77}), json!("fail")];
    for (answer, runs, end) in answers
        .into_iter()
        .zip([2, 1, 1])
        .zip(["paid 2", "paid 77", ""])
        .map(|((a, r), e)| (a, r, e))
    {
        let (store, effects) = (Watched::default(), Count::default());
        let graph = paying(&effects).checkpointer(store.clone());
        let question = in_doubt(&store, &graph).await.remove(0);
        assert_eq!((question.payload, got(&effects)), (json!({"effect": "pay"}), 1));
        let outcome = graph.resume(&thread("t")).answers(Answers::One(answer)).await;
        match outcome {
            Ok(outcome) => assert_eq!(log_of(outcome), [end]),
            Err(error) => {
                assert!(end.is_empty() && error.to_string().ends_with("effect `pay` was given up while in doubt"));
                graph.resume(&thread("t")).await.unwrap_err();
            }
        }
        assert_eq!(got(&effects), runs);
    }
}

#[tokio::test]
async fn an_effect_that_is_in_doubt_a_second_time_is_asked_about_a_second_time() {
    let (store, effects) = (Watched::default(), Count::default());
    let graph = paying(&effects).checkpointer(store.clone());
    in_doubt(&store, &graph).await;
    // Answer, intent, then the effect's result.
    store.fail_commit_at(store.commits() + 3);
    graph
        .resume(&thread("t"))
        .answers(Answers::One(json!("retry")))
        .await
        .unwrap_err();
    assert_eq!(got(&effects), 2);
    asked(graph.resume(&thread("t")).await.unwrap());
    assert_eq!(got(&effects), 2, "nobody has said that it may be tried a third time");
    let outcome = graph
        .resume(&thread("t"))
        .answers(Answers::One(json!({"done": 2})))
        .await
        .unwrap();
    assert_eq!(log_of(outcome), ["paid 2"]);
}

#[tokio::test]
async fn an_effect_of_class_other_does_not_begin_when_its_intent_cannot_be_kept() {
    let (store, effects) = (Watched::default(), Count::default());
    let graph = paying(&effects).checkpointer(store.clone());
    store.fail_commit_at(2);
    graph.run(&thread("t"), draft()).await.unwrap_err();
    assert_eq!(got(&effects), 0);
}

#[tokio::test]
async fn time_randomness_and_ids_are_the_same_whenever_a_task_is_entered_again() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let notes = Arc::clone(&seen);
    let mut g = Graph::<Form>::builder("recorded");
    for name in ["a", "b"] {
        let notes = Arc::clone(&notes);
        let node = g.node(name, move |_: Arc<Form>, ctx: Context<()>| {
            let drawn = (ctx.now(), ctx.rng("x").random::<u64>(), ctx.uuid("x"), ctx.uuid("y"));
            notes.lock().unwrap().push((name, drawn));
            ready(review(&ctx).map(|_| line(name)))
        });
        g.policy(node, Policy::new()).edge(START, node).edge(node, END);
    }
    let graph = g.build().unwrap().checkpointer(Memory::new());
    let open = asked(graph.run(&thread("t"), draft()).await.unwrap());
    let all = open.iter().map(|q| (q.id.clone(), json!("wrong"))).collect();
    asked(graph.resume(&thread("t")).answers(Answers::Many(all)).await.unwrap());
    let seen = seen.lock().unwrap();
    let of = |name| {
        seen.iter()
            .filter(|(node, _)| *node == name)
            .map(|(_, drawn)| *drawn)
            .collect::<Vec<_>>()
    };
    let (a, b) = (of("a"), of("b"));
    assert_eq!((a.len(), a[0], b[0]), (2, a[1], b[1]));
    assert!(
        a[0].1 != b[0].1 && a[0].2 != b[0].2 && a[0].2 != a[0].3,
        "different for every other task and purpose"
    );
}
