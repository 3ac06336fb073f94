//! Stored bytes as a tree that keeps everything they say: to show them, to compare them, and to write them as JSON and back.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, SeqAccess, Visitor},
    ser::{SerializeMap, SerializeSeq},
};
use serde_json::Value;

/// Deepest nesting that is taken for a tree; bytes beyond it stay bytes.
const DEPTH_MAX: usize = 64;

/// A value of `MessagePack`, its maps in the order in which they stand there.
///
/// As JSON it says the same with a few marks: an object with the one key `$bytes` (hexadecimal), `$packed` (bytes that are
/// themselves such a value), `$f32` (a number as text), `$f64` (the bits of one that JSON cannot say) or `$map` (pairs, for
/// keys that are no text).
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Tree {
    Nil,
    Bool(bool),
    Int(i64),
    UInt(u64),
    F32(f32),
    F64(f64),
    Text(String),
    Bytes(Vec<u8>),
    List(Vec<Tree>),
    Map(Vec<(Tree, Tree)>),
}

const BYTES: &str = "$bytes";
const PACKED: &str = "$packed";
const F32: &str = "$f32";
const F64: &str = "$f64";
const MAP: &str = "$map";
const MARKS: [&str; 5] = [BYTES, PACKED, F32, F64, MAP];

impl Tree {
    /// Reads `MessagePack`; `None` unless writing the tree gives the same bytes again.
    pub(crate) fn unpack(bytes: &[u8]) -> Option<Self> {
        let tree: Self = rmp_serde::from_slice(bytes).ok()?;
        (tree.depth() <= DEPTH_MAX && tree.pack()? == bytes).then_some(tree)
    }

    /// Writes `MessagePack`.
    pub(crate) fn pack(&self) -> Option<Vec<u8>> {
        rmp_serde::to_vec_named(self).ok()
    }

    fn depth(&self) -> usize {
        match self {
            Self::List(items) => 1 + items.iter().map(Self::depth).max().unwrap_or(0),
            Self::Map(entries) => {
                let deepest = entries.iter().map(|(key, value)| key.depth().max(value.depth())).max();
                1 + deepest.unwrap_or(0)
            }
            _ => 0,
        }
    }

    /// The same with the entries of all maps in one order, so that two that say the same are equal.
    pub(crate) fn sorted(self) -> Self {
        match self {
            Self::List(items) => Self::List(items.into_iter().map(Self::sorted).collect()),
            Self::Map(entries) => {
                let sorted = entries.into_iter().map(|(key, value)| (key.sorted(), value.sorted()));
                let mut entries: Vec<_> = sorted.collect();
                entries.sort_by_cached_key(|(key, _)| key.pack());
                Self::Map(entries)
            }
            other => other,
        }
    }

    /// The value of a key, if this is a map that has it.
    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        let Self::Map(entries) = self else { return None };
        let found = entries
            .iter()
            .find(|(name, _)| matches!(name, Self::Text(text) if text == key));
        found.map(|(_, value)| value)
    }

    /// As JSON, for people.
    pub(crate) fn to_json(&self) -> Value {
        serde_json::to_value(self).unwrap_or(Value::Null)
    }
}

/// Stored bytes as JSON, for people.
pub(crate) fn shown(bytes: &[u8]) -> Value {
    Tree::unpack(bytes).map_or_else(|| Value::String(hex(bytes)), |tree| tree.to_json())
}

/// Whether two values say the same; the order of maps says nothing.
pub(crate) fn same(a: &[u8], b: &[u8]) -> bool {
    a == b
        || match (Tree::unpack(a), Tree::unpack(b)) {
            (Some(a), Some(b)) => a.sorted().pack() == b.sorted().pack(),
            _ => false,
        }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use fmt::Write;
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing into a string cannot fail.
        let _written = write!(text, "{byte:02x}");
    }
    text
}

pub(crate) fn unhex(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|pair| {
            let pair = std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2)?;
            u8::from_str_radix(pair, 16).ok()
        })
        .collect()
}

impl Serialize for Tree {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let json = serializer.is_human_readable();
        match self {
            Self::Nil => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Int(value) => serializer.serialize_i64(*value),
            Self::UInt(value) => serializer.serialize_u64(*value),
            Self::F32(value) if json => marked(serializer, F32, &value.to_string()),
            Self::F32(value) => serializer.serialize_f32(*value),
            Self::F64(value) if json && !value.is_finite() => marked(serializer, F64, &value.to_bits()),
            Self::F64(value) => serializer.serialize_f64(*value),
            Self::Text(text) => serializer.serialize_str(text),
            Self::Bytes(bytes) if json => match Self::unpack(bytes) {
                Some(tree @ (Self::List(_) | Self::Map(_))) => marked(serializer, PACKED, &tree),
                _ => marked(serializer, BYTES, &hex(bytes)),
            },
            Self::Bytes(bytes) => serializer.serialize_bytes(bytes),
            Self::List(items) => {
                let mut list = serializer.serialize_seq(Some(items.len()))?;
                for item in items {
                    list.serialize_element(item)?;
                }
                list.end()
            }
            Self::Map(entries) if json && !is_plain(entries) => {
                let pairs: Vec<_> = entries.iter().map(|(key, value)| [key, value]).collect();
                marked(serializer, MAP, &pairs)
            }
            Self::Map(entries) => {
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                for (key, value) in entries {
                    map.serialize_entry(key, value)?;
                }
                map.end()
            }
        }
    }
}

/// Whether a map is an object of JSON that nothing could take for a mark.
fn is_plain(entries: &[(Tree, Tree)]) -> bool {
    let text = |key: &Tree| matches!(key, Tree::Text(_));
    let mark = matches!(entries, [(Tree::Text(key), _)] if MARKS.contains(&key.as_str()));
    let distinct = || {
        let keys: std::collections::BTreeSet<_> = entries.iter().map(|(key, _)| key.pack()).collect();
        keys.len() == entries.len()
    };
    entries.iter().all(|(key, _)| text(key)) && !mark && distinct()
}

fn marked<S: Serializer, T: Serialize + ?Sized>(serializer: S, mark: &str, value: &T) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(1))?;
    map.serialize_entry(mark, value)?;
    map.end()
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = deserializer.is_human_readable();
        deserializer.deserialize_any(Reader { json })
    }
}

struct Reader {
    json: bool,
}

impl<'de> Visitor<'de> for Reader {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a stored value")
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Nil)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        Ok(u64::try_from(value).map_or(Tree::Int(value), Tree::UInt))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree::UInt(value))
    }

    fn visit_f32<E>(self, value: f32) -> Result<Tree, E> {
        Ok(Tree::F32(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Tree, E> {
        Ok(Tree::F64(value))
    }

    fn visit_str<E>(self, text: &str) -> Result<Tree, E> {
        Ok(Tree::Text(text.to_owned()))
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Tree, E> {
        Ok(Tree::Bytes(bytes.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Tree, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Tree::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
        let mut entries: Vec<(Tree, Tree)> = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        if !self.json {
            return Ok(Tree::Map(entries));
        }
        match entries.as_slice() {
            [(Tree::Text(mark), value)] if MARKS.contains(&mark.as_str()) => unmark(mark, value)
                .ok_or_else(|| serde::de::Error::custom(format_args!("`{mark}` does not mark what stands there"))),
            _ => Ok(Tree::Map(entries)),
        }
    }
}

/// What a marked object of JSON says.
fn unmark(mark: &str, value: &Tree) -> Option<Tree> {
    match (mark, value) {
        (BYTES, Tree::Text(text)) => unhex(text).map(Tree::Bytes),
        (PACKED, tree) => tree.pack().map(Tree::Bytes),
        (F32, Tree::Text(text)) => text.parse().ok().map(Tree::F32),
        (F64, Tree::UInt(bits)) => Some(Tree::F64(f64::from_bits(*bits))),
        (MAP, Tree::List(pairs)) => {
            let pair = |pair: &Tree| match pair {
                Tree::List(pair) => match pair.as_slice() {
                    [key, value] => Some((key.clone(), value.clone())),
                    _ => None,
                },
                _ => None,
            };
            pairs.iter().map(pair).collect::<Option<_>>().map(Tree::Map)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn tree() -> impl Strategy<Value = Tree> {
        let leaf = prop_oneof![
            Just(Tree::Nil),
            any::<bool>().prop_map(Tree::Bool),
            (i64::MIN..0).prop_map(Tree::Int),
            any::<u64>().prop_map(Tree::UInt),
            any::<f32>()
                .prop_filter("NaN is not itself", |f| !f.is_nan())
                .prop_map(Tree::F32),
            any::<i32>().prop_map(|n| Tree::F64(f64::from(n) / 8.0)),
            prop_oneof![
                "[$a-c]{0,6}",
                proptest::sample::select(MARKS.map(str::to_owned).to_vec())
            ]
            .prop_map(Tree::Text),
            vec(any::<u8>(), 0..6).prop_map(Tree::Bytes),
        ];
        leaf.prop_recursive(4, 40, 5, |inner| {
            prop_oneof![
                vec(inner.clone(), 0..5).prop_map(Tree::List),
                vec((inner.clone(), inner), 0..5).prop_map(Tree::Map),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_tree_comes_back_from_its_bytes_and_from_its_json(tree in tree()) {
            let bytes = tree.pack().unwrap();
            prop_assert_eq!(Tree::unpack(&bytes), Some(tree.clone()));
            let json = serde_json::to_string(&tree).unwrap();
            let read: Tree = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(read.pack().unwrap(), bytes, "{}", json);
        }

        #[test]
        fn the_order_of_a_map_says_nothing(entries in proptest::collection::btree_map("[a-z]{1,4}", any::<u8>(), 0..6)) {
            let entry = |(key, value): (&String, &u8)| (Tree::Text(key.clone()), Tree::UInt(u64::from(*value)));
            let forth = Tree::Map(entries.iter().map(entry).collect()).pack().unwrap();
            let back = Tree::Map(entries.iter().rev().map(entry).collect()).pack().unwrap();
            prop_assert!(same(&forth, &back));
        }
    }

    #[test]
    fn other_values_are_not_the_same() {
        let one = Tree::List(vec![Tree::UInt(1), Tree::UInt(2)]).pack().unwrap();
        let two = Tree::List(vec![Tree::UInt(2), Tree::UInt(1)]).pack().unwrap();
        assert!(!same(&one, &two));
        assert_eq!(unhex("0g"), None);
        assert_eq!(unhex("0"), None);
    }
}
