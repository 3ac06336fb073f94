//! What the derives promise of the code that they write.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by a panic")]

use std::sync::Arc;

use proptest::{collection::vec, option, prelude::*};
use serde::{Deserialize, Serialize};
use serde_json::json;
use stepgraph::{Append, Ask, Changes, FromState, Max, Reducer, Route, State, StateError, Sum, Update, View};

/// A reducer of a user's own.
struct Longest;

impl Reducer<String> for Longest {
    type Update = String;
    const ID: &'static str = "longest";
    const CONCURRENT: bool = true;

    fn first(update: String) -> String {
        update
    }

    fn reduce(current: &mut String, update: String) {
        if update.len() > current.len() {
            *current = update;
        }
    }
}

struct Ticked;

#[derive(State, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[state(event = Ticked, version = 3)]
#[state(input_derive(schemars::JsonSchema, PartialEq))]
struct Chat {
    /// What is asked.
    #[state(input)]
    question: String,
    #[state(input, default = "en".to_owned())]
    language: String,
    #[state(input, reducer = Append)]
    messages: Vec<String>,
    #[state(input, per_run, reducer = Append, default = Vec::new())]
    attached: Vec<u8>,
    #[state(per_run, reducer = Append)]
    sources: Vec<u8>,
    #[state(reducer = Sum)]
    tokens: u64,
    #[state(reducer = Max)]
    score: i32,
    #[state(reducer = Longest)]
    title: String,
    #[state(per_run)]
    answer: Option<String>,
    #[state(untracked, reducer = Append)]
    scratch: Vec<u8>,
    r#type: Option<u8>,
}

fn input(question: &str) -> ChatInput {
    ChatInput::new(question, [format!("user: {question}")])
}

fn chat() -> Chat {
    Chat::start(&(), input("why?"))
}

fn decode(parts: &[Vec<u8>]) -> Result<Chat, StateError> {
    let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    Chat::decode(&(), &parts)
}

/// What one step does to a state.
#[derive(Debug, Clone)]
enum Step {
    Merge(Vec<ChatUpdate>),
    Restart(ChatInput),
    /// The chain of changes begins anew with the whole state.
    Snapshot,
}

fn updates() -> impl Strategy<Value = ChatUpdate> {
    let replaced = (
        option::of(".{0,3}"),
        option::of(option::of(".{0,3}")),
        option::of(option::of(0..9_u8)),
    );
    let merged = (option::of(0..9_u64), option::of(-9..9_i32), option::of("a{0,5}"));
    let lists = (option::of(vec(".{0,2}", 0..3)), option::of(vec(0..9_u8, 0..3)));
    let more = (option::of(vec(0..9_u8, 0..3)), option::of(vec(0..9_u8, 0..3)));
    (replaced, merged, lists, more).prop_map(|(replaced, merged, lists, more)| {
        ChatUpdateFields {
            question: replaced.0,
            answer: replaced.1,
            r#type: replaced.2,
            language: None,
            tokens: merged.0,
            score: merged.1,
            title: merged.2,
            messages: lists.0,
            sources: lists.1,
            attached: more.0,
            scratch: more.1,
            ..ChatUpdateFields::default()
        }
        .into()
    })
}

fn inputs() -> impl Strategy<Value = ChatInput> {
    (".{0,3}", "[a-z]{2}", vec(".{0,3}", 0..3), vec(0..9_u8, 0..3)).prop_map(
        |(question, language, messages, attached)| ChatInput {
            question,
            language,
            messages,
            attached,
        },
    )
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => vec(updates(), 0..4).prop_map(Step::Merge),
        1 => inputs().prop_map(Step::Restart),
        1 => Just(Step::Snapshot),
    ]
}

proptest! {
    #[test]
    fn stored_changes_rebuild_the_live_state(start in inputs(), steps in vec(steps(), 0..12)) {
        let mut live = Chat::start(&(), start);
        let mut parts = vec![live.encode().unwrap()];
        let mut changes = Changes::default();
        for step in steps {
            changes.clear();
            match step {
                Step::Merge(updates) => updates.into_iter().for_each(|update| live.apply(update, &mut changes)),
                Step::Restart(input) => live.restart(input, &mut changes),
                Step::Snapshot => {
                    parts = vec![live.encode().unwrap()];
                    continue;
                }
            }
            parts.push(live.encode_changes(&changes).unwrap());
        }
        prop_assert_eq!(decode(&parts).unwrap(), Chat { scratch: Vec::new(), ..live });
    }

    #[test]
    fn an_update_survives_its_stored_and_its_json_form(update in updates()) {
        let whole = |update: &ChatUpdate| (format!("{update:?}"), serde_json::to_value(update).unwrap());
        let stored: ChatUpdate = rmp_serde::from_slice(&rmp_serde::to_vec_named(&update).unwrap()).unwrap();
        let json: ChatUpdate = serde_json::from_str(&serde_json::to_string(&update).unwrap()).unwrap();
        prop_assert_eq!(whole(&stored), whole(&update));
        prop_assert_eq!(whole(&json), whole(&update));
    }
}

#[test]
fn a_new_state_has_its_input_and_the_defaults_of_the_rest() {
    let expected = Chat {
        question: "why?".into(),
        language: "en".into(),
        messages: vec!["user: why?".into()],
        attached: Vec::new(),
        sources: Vec::new(),
        tokens: 0,
        score: 0,
        title: String::new(),
        answer: None,
        scratch: Vec::new(),
        r#type: None,
    };
    assert_eq!(chat(), expected);
    assert_eq!(Chat::VERSION, 3);
    let _: <Chat as State>::Event = Ticked;
}

#[test]
fn new_input_resets_the_fields_of_the_last_run_and_merges_into_the_lasting_ones() {
    let mut live = chat();
    let mut changes = Changes::default();
    live.attached = vec![7];
    live.apply(
        Chat::update().sources([1]).tokens(5_u64).answer("so".to_owned()),
        &mut changes,
    );
    changes.clear();
    live.restart(input("how?"), &mut changes);
    assert_eq!(live.messages, ["user: why?", "user: how?"]);
    assert_eq!((live.question.as_str(), live.tokens, &live.answer), ("how?", 5, &None));
    assert!(live.sources.is_empty() && live.attached.is_empty());
    let touched: Vec<_> = changes
        .fields()
        .iter()
        .map(|field| Chat::fields(&())[field].name.clone())
        .collect();
    assert_eq!(
        touched,
        ["question", "language", "messages", "attached", "sources", "answer"]
    );
}

#[test]
fn an_update_touches_the_fields_that_were_set() {
    let update = Chat::update().tokens(3_u64).answer(None);
    assert_eq!(update.touched(Chat::fields(&())).iter().collect::<Vec<_>>(), [5, 8]);
    assert!(Chat::update().is_empty() && ChatUpdate::from(()).is_empty());
    let from_input: ChatUpdate = input("why?").into();
    assert_eq!(
        from_input.touched(Chat::fields(&())).iter().collect::<Vec<_>>(),
        [0, 1, 2, 3]
    );
}

#[test]
fn fields_name_their_reducers_and_whether_several_tasks_may_write_them() {
    let fields: Vec<_> = Chat::fields(&())
        .iter()
        .map(|field| (field.name.as_ref(), field.reducer.as_ref(), field.concurrent))
        .collect();
    assert_eq!(fields[0], ("question", "replace", false));
    assert_eq!(fields[4], ("sources", "append", true));
    assert_eq!(fields[7], ("title", "longest", true));
    assert_eq!(fields[10], ("type", "replace", false));
}

#[test]
fn null_is_a_value_and_absent_is_none() {
    let null: ChatUpdate = serde_json::from_value(json!({"answer": null})).unwrap();
    let absent: ChatUpdate = serde_json::from_value(json!({})).unwrap();
    let answer = |update: &ChatUpdate| update.clone().into_fields().answer;
    assert_eq!((answer(&null), answer(&absent)), (Some(None), None));
    assert_eq!(serde_json::to_value(null).unwrap(), json!({"answer": null}));
    assert_eq!(serde_json::to_value(absent).unwrap(), json!({}));
    let refused = serde_json::from_value::<ChatUpdate>(json!({"tokens": null})).unwrap_err();
    assert!(refused.to_string().contains("invalid type: null"), "{refused}");
}

#[test]
fn an_unknown_key_is_refused_by_its_name() {
    let update = serde_json::from_value::<ChatUpdate>(json!({"anwser": "so"})).unwrap_err();
    assert!(update.to_string().contains("unknown field `anwser`"), "{update}");
    let input = json!({"question": "why?", "messages": [], "tenant": "t2"});
    let input = serde_json::from_value::<ChatInput>(input).unwrap_err();
    assert!(input.to_string().contains("unknown field `tenant`"), "{input}");
}

#[test]
fn an_input_may_leave_out_what_has_a_default_and_nothing_else() {
    let given: ChatInput = serde_json::from_value(json!({"question": "why?", "messages": ["user: why?"]})).unwrap();
    assert!(given == input("why?"));
    let refused = serde_json::from_value::<ChatInput>(json!({"messages": []})).unwrap_err();
    assert!(refused.to_string().contains("missing field `question`"), "{refused}");
}

#[test]
fn the_schema_of_an_input_can_be_derived_and_tells_what_is_required() {
    let schema = schemars::schema_for!(ChatInput);
    assert_eq!(schema.as_value()["required"], json!(["question", "messages"]));
    assert_eq!(schema.as_value()["additionalProperties"], json!(false));
    assert_eq!(
        schema.as_value()["properties"]["question"]["description"],
        json!("What is asked.")
    );
    assert_eq!(schema.as_value()["properties"]["language"]["default"], json!("en"));
}

#[test]
fn debug_forms_name_fields_and_tell_no_values() {
    let update = Chat::update().answer("secret".to_owned()).r#type(7);
    assert_eq!(format!("{update:?}"), "ChatUpdate { answer: .., type: .. }");
    assert_eq!(format!("{:?}", input("secret")), "ChatInput { .. }");
}

/// The stored form, byte by byte: threads of older programs are made of it.
#[test]
fn the_stored_form_is_a_map_from_field_to_effect() {
    #[derive(State, Clone, Serialize, Deserialize)]
    struct Small {
        #[state(input)]
        question: String,
        #[state(reducer = Append)]
        sources: Vec<String>,
        #[state(reducer = Sum)]
        tokens: u64,
        answer: Option<String>,
        #[state(untracked)]
        scratch: u8,
    }
    let mut state = Small::start(&(), SmallInput::new("a"));
    let whole =
        b"\x84\xa8question\x81\xa3set\xa1a\xa7sources\x81\xa3set\x90\xa6tokens\x81\xa3set\x00\xa6answer\x81\xa3set\xc0";
    assert_eq!(state.encode().unwrap(), whole);

    let mut changes = Changes::default();
    state.apply(Small::update().sources(["x".to_owned()]), &mut changes);
    changes.clear();
    state.apply(
        Small::update().sources(["y".to_owned()]).tokens(300_u64).scratch(1),
        &mut changes,
    );
    let tail = b"\x82\xa7sources\x81\xa6append\x91\xa1y\xa6tokens\x81\xa3set\xcd\x01\x2c";
    assert_eq!(state.encode_changes(&changes).unwrap(), tail);
    assert_eq!(state.encode_changes(&Changes::default()).unwrap(), b"\x80");
}

#[test]
fn stored_bytes_that_do_not_fit_are_refused_by_the_name_of_the_field() {
    let refused = |parts: &[&[u8]]| Chat::decode(&(), parts).unwrap_err().to_string();
    let whole = chat().encode().unwrap();
    for (parts, part) in [
        (
            vec![b"\x81\xa4gone\x81\xa3set\x01".as_slice()],
            "field `gone`: it is stored, and this state has no such field",
        ),
        (
            vec![b"\x81\xa6tokens\x81\xa3set\xa1x"],
            "field `tokens`: wrong msgpack marker",
        ),
        (
            vec![b"\x81\xa6tokens\x81\xa6append\x90"],
            "field `tokens`: an appended tail is stored for a field",
        ),
        (
            vec![b"\x81\xa7sources\x81\xa6append\x91\x01"],
            "field `sources`: an appended tail is stored before any list",
        ),
        (vec![&whole, b"\x80\x80"], "bytes follow the last field"),
        (vec![&whole, b"\x80\xc1"], "bytes follow the last field"),
        (vec![&whole, b"\x81\xa6tok"], "IO error"),
        (vec![b"\x80"], "field `question` is not stored"),
        (vec![], "field `question` is not stored"),
    ] {
        let message = refused(&parts);
        assert!(message.contains(part), "{message}");
        assert!(
            message.ends_with("migrate it, or run it with the version that wrote it"),
            "{message}"
        );
    }
}

#[test]
fn an_input_with_a_default_and_a_field_of_the_run_may_be_added_to_what_is_stored() {
    #[derive(State, Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Before {
        #[state(input)]
        question: String,
    }
    #[derive(State, Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct After {
        #[state(input)]
        question: String,
        #[state(input, default = "en".to_owned())]
        language: String,
        #[state(input, reducer = Append, default = vec![7])]
        tags: Vec<u8>,
        #[state(per_run)]
        answer: Option<String>,
    }
    let stored = Before {
        question: "why?".to_owned(),
    }
    .encode()
    .unwrap();

    let after = After::decode(&(), &[&stored]).unwrap();

    let expected = After {
        question: "why?".to_owned(),
        language: "en".to_owned(),
        tags: vec![7],
        answer: None,
    };
    assert_eq!(after, expected);
}

#[test]
fn a_field_that_does_not_encode_is_named() {
    #[derive(Clone, Default, Deserialize)]
    struct Broken;
    impl Serialize for Broken {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("no form"))
        }
    }
    #[derive(State, Clone, Serialize, Deserialize)]
    struct Holder {
        broken: Broken,
    }
    let state = Holder::start(&(), HolderInput::default());
    assert_eq!(
        state.encode().unwrap_err().to_string(),
        "the state cannot be encoded: field `broken`: no form"
    );
}

/// Declares a state of counters.
macro_rules! wide {
    ($($field:ident)*) => {
        #[derive(State, Clone, Debug, PartialEq, Serialize, Deserialize)]
        struct Wide { $(#[state(reducer = Sum)] $field: u64),* }

        fn wide_update(value: u64) -> WideUpdate {
            Wide::update()$(.$field(value))*
        }
    };
}

wide! {
    a0 a1 a2 a3 a4 a5 a6 a7 a8 a9 b0 b1 b2 b3 b4 b5 b6 b7 b8 b9 c0 c1 c2 c3 c4 c5 c6 c7 c8 c9 d0 d1 d2 d3 d4 d5 d6 d7 d8 d9
    e0 e1 e2 e3 e4 e5 e6 e7 e8 e9 f0 f1 f2 f3 f4 f5 f6 f7 f8 f9 g0 g1 g2 g3 g4 g5 g6 g7 g8 g9 h0 h1 h2 h3 h4 h5 h6 h7 h8 h9
}

#[test]
fn a_state_may_have_more_than_64_fields() {
    let mut live = Wide::start(&(), WideInput::new());
    let whole = live.encode().unwrap();
    let mut changes = Changes::default();
    live.apply(wide_update(2), &mut changes);
    live.apply(Wide::update().h9(1_u64).g3(1_u64), &mut changes);
    assert_eq!(
        wide_update(2).touched(Wide::fields(&())).iter().collect::<Vec<_>>(),
        (0..80).collect::<Vec<_>>()
    );
    let tail = live.encode_changes(&changes).unwrap();
    assert_eq!((live.a0, live.g3, live.h9), (2, 3, 3));
    assert_eq!(Wide::decode(&(), &[&whole, &tail]).unwrap(), live);
}

#[test]
fn a_view_clones_its_fields_out_of_the_state() {
    #[derive(View)]
    #[view(of = Chat)]
    struct Query {
        #[view(from = question)]
        text: String,
        language: String,
    }
    let query = Query::from_state(&Arc::new(chat()));
    assert_eq!((query.text.as_str(), query.language.as_str()), ("why?", "en"));
}

#[test]
fn routes_know_their_labels_and_positions() {
    #[derive(Route, Clone, Copy, Debug, PartialEq)]
    enum Verdict {
        Accept,
        TryAgain,
        HTTPError,
    }
    let all: Vec<_> = Verdict::ALL
        .iter()
        .map(|route| (route.index(), route.label()))
        .collect();
    assert_eq!(all, [(0, "accept"), (1, "try_again"), (2, "http_error")]);
    assert_eq!(Verdict::ALL, [Verdict::Accept, Verdict::TryAgain, Verdict::HTTPError]);
}

#[test]
fn a_question_may_borrow_what_it_asks_about() {
    #[derive(Ask, Serialize)]
    #[ask(name = "review", answer = Option<bool>)]
    struct Review<'a> {
        draft: &'a str,
    }
    fn answer<Q: Ask>(_: &Q, answer: Q::Answer) -> (&'static str, Q::Answer) {
        (Q::NAME, answer)
    }
    assert_eq!(answer(&Review { draft: "so" }, Some(true)), ("review", Some(true)));
}

/// Names that the expansion uses must not be taken from the user's.
mod names_of_the_user_do_not_matter {
    #![allow(non_camel_case_types, dead_code, reason = "the names are the point")]
    use serde::{Deserialize, Serialize};

    type Option = u8;
    type Result = u8;
    type Vec = u8;
    type String = u8;
    struct D;
    struct S;

    #[derive(stepgraph::State, Clone, Serialize, Deserialize)]
    pub(crate) struct Odd {
        #[state(input)]
        value: Option,
        #[state(input, default = 3)]
        update: Result,
        input: Vec,
        changes: String,
        state: u8,
        name: u8,
        effect: u8,
        mark: u8,
        field: u8,
        fields: u8,
        out: u8,
        slots: u8,
        parts: u8,
        f: u8,
        shown: u8,
        new: u8,
    }
}

#[test]
fn fields_may_have_the_names_that_the_expansion_uses() {
    use names_of_the_user_do_not_matter::{Odd, OddInput};
    let mut state = Odd::start(&(), OddInput::new(7));
    let mut changes = Changes::default();
    state.apply(Odd::update().update(9).slots(1), &mut changes);
    let stored = [state.encode().unwrap(), state.encode_changes(&changes).unwrap()];
    let read = Odd::decode(&(), &[&stored[0], &stored[1]]).unwrap();
    assert_eq!(read.encode().unwrap(), state.encode().unwrap());
}
