//! Server-sent events: frames, and the text of an answer cut so that every reader of the stream sees it whole.
//!
//! The widget looks at each `data:` line on its own and takes one that parses as JSON for something else than text. So
//! text that looks like JSON is held back until what follows makes it prose, and marked with an invisible word joiner
//! where nothing follows. By the standard's own rules the text is then the same but for one blank before each newline.

use std::convert::Infallible;

use axum::{
    body::Body,
    http::{HeaderMap, HeaderName, HeaderValue, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use serde::{Serialize, de::IgnoredAny};

/// Shown as nothing, kept out of line breaking, and not white space to a JSON parser.
const WORD_JOINER: char = '\u{2060}';
/// The data of the last event.
const DONE: &str = "[DONE]";

/// How text travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// Raw text, for the widget.
    Text,
    /// `{"text": ..}` with event ids, for everyone else.
    Json,
}

/// A response of frames that no proxy may hold back or keep.
pub(crate) fn response(frames: impl Stream<Item = Bytes> + Send + 'static) -> Response {
    let headers = HeaderMap::from_iter([
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (
            HeaderName::from_static("x-accel-buffering"),
            HeaderValue::from_static("no"),
        ),
    ]);
    let frames = frames.map(Ok::<_, Infallible>);
    (headers, Body::from_stream(frames)).into_response()
}

/// A comment that keeps proxies from closing a quiet stream.
pub(crate) fn keep_alive() -> Bytes {
    Bytes::from_static(b": keep-alive\n\n")
}

/// The last event.
pub(crate) fn done(id: Option<&str>) -> Bytes {
    frame("done", id, [DONE])
}

/// An event whose data is one line of JSON.
pub(crate) fn json(event: &str, id: Option<&str>, data: &impl Serialize) -> Bytes {
    // Types of this crate alone come here; none of them can fail to be written.
    let data = serde_json::to_string(data).unwrap_or_else(|_| "{}".to_owned());
    frame(event, id, [data.as_str()])
}

fn frame<'a>(event: &str, id: Option<&str>, lines: impl IntoIterator<Item = &'a str>) -> Bytes {
    let mut out = format!("event: {event}\n");
    if let Some(id) = id {
        out.push_str("id: ");
        out.push_str(id);
        out.push('\n');
    }
    for line in lines {
        out.push_str("data: ");
        out.push_str(line);
        out.push('\n');
    }
    out.push('\n');
    out.into()
}

/// Cuts an answer into chunk events of the text dialect.
#[derive(Debug, Default)]
pub(crate) struct TextCutter {
    /// Text of the current line that may not be sent as it stands.
    held: String,
    /// The last piece ended in a carriage return, which may be half of a line end.
    after_return: bool,
}

impl TextCutter {
    /// Takes the next piece of the answer and returns the event it completes, if any.
    pub(crate) fn push(&mut self, piece: &str) -> Option<Bytes> {
        self.append(piece);
        let mut lines: Vec<String> = self.held.split('\n').map(str::to_owned).collect();
        let rest = lines.pop().unwrap_or_default();
        let ends_lines = !lines.is_empty();
        let mut data: Vec<String> = lines.into_iter().map(|line| guarded(line, " ")).collect();
        self.held.clear();
        if looks_like_data(&rest) {
            self.held = rest;
            if ends_lines {
                data.push(String::new());
            }
        } else if ends_lines || !rest.is_empty() {
            data.push(rest);
        }
        (!data.is_empty()).then(|| frame("chunk", None, data.iter().map(String::as_str)))
    }

    /// The event of what is still held when the answer is over.
    pub(crate) fn finish(&mut self) -> Option<Bytes> {
        let rest = std::mem::take(&mut self.held);
        (!rest.is_empty()).then(|| frame("chunk", None, [guarded(rest, "").as_str()]))
    }

    /// CR LF and CR become LF, also where a piece ends between the two.
    fn append(&mut self, piece: &str) {
        for char in piece.chars() {
            match char {
                '\n' if self.after_return => {}
                '\r' => self.held.push('\n'),
                char => self.held.push(char),
            }
            self.after_return = char == '\r';
        }
    }
}

/// A line that is over: marked where it would be taken for data, then its end.
fn guarded(mut line: String, end: &str) -> String {
    if looks_like_data(&line) {
        line.push(WORD_JOINER);
    }
    line.push_str(end);
    line
}

/// Whether a reader that looks at this line alone takes it for something else than text.
fn looks_like_data(line: &str) -> bool {
    line.trim() == DONE || serde_json::from_str::<IgnoredAny>(line).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stream(pieces: &[&str]) -> String {
        let mut cutter = TextCutter::default();
        let mut frames: Vec<Bytes> = pieces.iter().filter_map(|piece| cutter.push(piece)).collect();
        frames.extend(cutter.finish());
        frames.iter().map(|frame| std::str::from_utf8(frame).unwrap()).collect()
    }

    /// What the existing widget shows: each line on its own, JSON is never text, `[DONE]` ends it.
    fn widget_shows(stream: &str) -> String {
        let mut shown = String::new();
        for line in stream.split('\n') {
            let Some(data) = line.strip_prefix("data: ") else {
                continue;
            };
            if data == "[DONE]" {
                break;
            }
            match data {
                "null" => shown.push_str("null"),
                json if serde_json::from_str::<IgnoredAny>(json).is_ok() => {}
                text => shown.push_str(text),
            }
        }
        shown
    }

    /// What a reader by the standard gets, whatever the network cuts the bytes into.
    fn standard_reads(stream: &str, read_bytes: usize) -> String {
        use eventsource_stream::Eventsource as _;
        use futures_util::FutureExt as _;
        let reads: Vec<_> = stream
            .as_bytes()
            .chunks(read_bytes)
            .map(|bytes| Ok::<_, Infallible>(Bytes::copy_from_slice(bytes)))
            .collect();
        let events = futures_util::stream::iter(reads).eventsource();
        let events: Vec<_> = events.collect().now_or_never().unwrap();
        events.into_iter().map(|event| event.unwrap().data).collect()
    }

    fn unmarked(text: &str) -> String {
        text.replace(WORD_JOINER, "")
    }

    #[test]
    fn chunks_follow_the_line_rules() {
        let cases: [(&[&str], &str); 16] = [
            (
                &["Hello", " world"],
                "event: chunk\ndata: Hello\n\nevent: chunk\ndata:  world\n\n",
            ),
            (&["42", " apples"], "event: chunk\ndata: 42 apples\n\n"),
            (&["42"], "event: chunk\ndata: 42\u{2060}\n\n"),
            (
                &["It is ", "42"],
                "event: chunk\ndata: It is \n\nevent: chunk\ndata: 42\u{2060}\n\n",
            ),
            (&["true"], "event: chunk\ndata: true\u{2060}\n\n"),
            (&["null"], "event: chunk\ndata: null\u{2060}\n\n"),
            (&["\"quoted\""], "event: chunk\ndata: \"quoted\"\u{2060}\n\n"),
            (&["[1]", "[2]"], "event: chunk\ndata: [1][2]\n\n"),
            (&["{\"a\":1}"], "event: chunk\ndata: {\"a\":1}\u{2060}\n\n"),
            (&["a\nb"], "event: chunk\ndata: a \ndata: b\n\n"),
            (
                &["a\n", "b"],
                "event: chunk\ndata: a \ndata: \n\nevent: chunk\ndata: b\n\n",
            ),
            (&["7\nb"], "event: chunk\ndata: 7\u{2060} \ndata: b\n\n"),
            (
                &["a\n7", " b"],
                "event: chunk\ndata: a \ndata: \n\nevent: chunk\ndata: 7 b\n\n",
            ),
            (
                &["a\r", "\nb\rc"],
                "event: chunk\ndata: a \ndata: \n\nevent: chunk\ndata: b \ndata: c\n\n",
            ),
            (&["[DONE]"], "event: chunk\ndata: [DONE]\u{2060}\n\n"),
            (&["", "1e999"], "event: chunk\ndata: 1e999\u{2060}\n\n"),
        ];
        for (pieces, expected) in cases {
            assert_eq!(stream(pieces), expected, "{pieces:?}");
        }
    }

    #[test]
    fn the_model_of_the_widget_loses_what_the_real_one_loses() {
        assert_eq!(widget_shows("data: 42\n\n"), "");
        assert_eq!(widget_shows("data: [1]\n\ndata: a\ndata: b\n\n"), "ab");
        assert_eq!(widget_shows("data:x\n\n"), "");
        assert_eq!(widget_shows("data: a\n\ndata: [DONE]\n\ndata: b\n\n"), "a");
    }

    #[test]
    fn other_frames_stand_as_the_contract_writes_them() {
        assert_eq!(done(None), "event: done\ndata: [DONE]\n\n");
        assert_eq!(json("sources", None, &[0; 0]), "event: sources\ndata: []\n\n");
        assert_eq!(json("chunk", Some("r-1"), &7), "event: chunk\nid: r-1\ndata: 7\n\n");
        assert_eq!(keep_alive(), ": keep-alive\n\n");
    }

    fn piece() -> impl Strategy<Value = String> {
        prop_oneof![
            "[a-z 0-9\n\r\\[\\]{}\",:.]{0,8}",
            Just("null".to_owned()),
            Just("[DONE]".to_owned()),
            Just("\"\\ud800\"".to_owned()),
            any::<String>(),
        ]
    }

    proptest! {
        #[test]
        fn any_text_in_any_pieces_reaches_widget_and_standard_readers_whole(
            pieces in prop::collection::vec(piece(), 0..12),
            read_bytes in 1_usize..40,
        ) {
            let text = unmarked(&pieces.concat().replace("\r\n", "\n").replace('\r', "\n"));
            let stream = stream(&pieces.iter().map(String::as_str).collect::<Vec<_>>());

            prop_assert_eq!(unmarked(&widget_shows(&stream)), text.replace('\n', " "));
            prop_assert_eq!(unmarked(&standard_reads(&stream, read_bytes)), text.replace('\n', " \n"));
            prop_assert!(!stream.contains('\r'));
        }
    }
}
