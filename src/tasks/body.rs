//! Changing one member of a JSON body without touching another byte of it.
//!
//! What upstream gets is what the client wrote, down to its white space: a body that is parsed and written again
//! loses the order of keys, the spelling of numbers, and whatever only the upstream understands.

use std::collections::HashSet;
use std::fmt;
use std::ops::Range;

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// A member of a JSON object, by its place in the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name, unescaped.
    pub name: String,
    /// Where the name stands, quotes included.
    name_at: Range<usize>,
    /// Where the value stands.
    value_at: Range<usize>,
}

/// The members of a JSON object, in the order of the text; those of the same name each for itself. `None` if `text` is
/// no JSON object.
pub fn members(text: &str) -> Option<Vec<Member>> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let members = deserializer.deserialize_map(Members(text)).ok()?;
    deserializer.end().ok()?;
    Some(members)
}

struct Members<'t>(&'t str);

impl<'t> Visitor<'t> for Members<'t> {
    type Value = Vec<Member>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("an object")
    }

    fn visit_map<A: MapAccess<'t>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let place = |raw: &'t RawValue| {
            let start = raw.get().as_ptr().addr() - self.0.as_ptr().addr();
            start..start + raw.get().len()
        };
        let mut members = Vec::new();
        while let Some((name, value)) = entries.next_entry::<&'t RawValue, &'t RawValue>()? {
            let (name_at, value_at) = (place(name), place(value));
            let name = serde_json::from_str(name.get()).map_err(Error::custom)?;
            members.push(Member { name, name_at, value_at });
        }
        Ok(members)
    }
}

impl Member {
    /// The value as it stands in `text`.
    pub fn value<'t>(&self, text: &'t str) -> &'t str {
        &text[self.value_at.clone()]
    }
}

/// `text` with `value`, which is JSON, in the place of the value of `member`.
pub fn with_value(text: &str, member: &Member, value: &str) -> String {
    [&text[..member.value_at.start], value, &text[member.value_at.end..]].concat()
}

/// `text` without the member at `index`, and without the comma that it leaves behind.
pub fn without(text: &str, members: &[Member], index: usize) -> String {
    let cut = match (index.checked_sub(1).map(|before| &members[before]), members.get(index + 1)) {
        (Some(before), _) => before.value_at.end..members[index].value_at.end,
        (None, Some(after)) => members[index].name_at.start..after.name_at.start,
        (None, None) => members[index].name_at.start..members[index].value_at.end,
    };
    [&text[..cut.start], &text[cut.end..]].concat()
}

/// What is wrong with JSON that can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// This name stands twice in an object; readers disagree on which of them counts.
    Doubled(String),
    /// It has more than [`MOST_VALUES`].
    TooMany,
}

/// So many values a body may have: each takes some hundred bytes when it is read. Requests have a few; a talk of ten megabytes has
/// some ten thousand.
pub const MOST_VALUES: usize = 250_000;

/// What is wrong with the JSON `text`, if anything is; with the number of its values above all.
pub fn trouble(text: &str) -> Option<Trouble> {
    let mut walk = Walk { doubled: None, values: 0 };
    // It ends where there are too many; other errors are not looked for here.
    let _ = (&mut walk).deserialize(&mut serde_json::Deserializer::from_str(text));
    if walk.values > MOST_VALUES { Some(Trouble::TooMany) } else { walk.doubled.map(Trouble::Doubled) }
}

/// Goes through a value, and notes what is wrong with it.
struct Walk {
    /// The first name that stands twice.
    doubled: Option<String>,
    values: usize,
}

impl Walk {
    fn value<E: Error>(&mut self) -> Result<(), E> {
        self.values += 1;
        if self.values > MOST_VALUES { Err(E::custom("too many values")) } else { Ok(()) }
    }
}

impl<'de> DeserializeSeed<'de> for &mut Walk {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, value: D) -> Result<(), D::Error> {
        value.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &mut Walk {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("any value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        self.value()?;
        let mut names = HashSet::new();
        while let Some(name) = members.next_key::<String>()? {
            if self.doubled.is_none() && names.contains(&name) {
                self.doubled = Some(name);
            } else if self.doubled.is_none() {
                names.insert(name);
            }
            members.next_value_seed(&mut *self)?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        self.value()?;
        while items.next_element_seed(&mut *self)?.is_some() {}
        Ok(())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        self.value()
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        self.value()
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        self.value()
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        self.value()
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        self.value()
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.value()
    }
}

/// All texts of the JSON `body` that have at least `shortest` bytes: names and numbers among them, since a record may show a number
/// as a text, and those of texts that are JSON themselves, as far as there are not too many. `None` if it is no JSON.
pub fn texts(body: &[u8], shortest: usize) -> Option<Vec<String>> {
    const MARK: char = '\u{feff}';
    let mut found = Vec::new();
    read_texts(body, shortest, &mut found)?;
    let mut place = 0;
    while let Some(text) = found.get(place) {
        // As servers trim that read it.
        let text = text.trim_matches(|sign: char| sign.is_whitespace() || sign == MARK);
        if text.starts_with(['{', '[', '"'])
            && trouble(text) != Some(Trouble::TooMany)
            && found.len() < MOST_VALUES
        {
            let (text, before) = (text.to_owned(), found.len());
            if read_texts(text.as_bytes(), shortest, &mut found).is_none() {
                found.truncate(before);
            }
        }
        place += 1;
    }
    Some(found)
}

fn read_texts(body: &[u8], shortest: usize, found: &mut Vec<String>) -> Option<()> {
    let mut reader = serde_json::Deserializer::from_slice(body);
    Texts { found, shortest }.deserialize(&mut reader).ok()?;
    reader.end().ok()
}

/// Goes through a value, and notes its texts.
struct Texts<'f> {
    found: &'f mut Vec<String>,
    shortest: usize,
}

impl Texts<'_> {
    fn note(&mut self, text: impl AsRef<str> + Into<String>) {
        if text.as_ref().len() >= self.shortest {
            self.found.push(text.into());
        }
    }

    fn again(&mut self) -> Texts<'_> {
        Texts { found: self.found, shortest: self.shortest }
    }
}

impl<'de> DeserializeSeed<'de> for Texts<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, value: D) -> Result<(), D::Error> {
        value.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Texts<'_> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("any value")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<(), A::Error> {
        while let Some(name) = members.next_key::<String>()? {
            self.note(name);
            members.next_value_seed(self.again())?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(self.again())?.is_some() {}
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(mut self, number: i64) -> Result<(), E> {
        self.note(itoa::Buffer::new().format(number));
        Ok(())
    }

    fn visit_u64<E>(mut self, number: u64) -> Result<(), E> {
        self.note(itoa::Buffer::new().format(number));
        Ok(())
    }

    fn visit_f64<E>(mut self, number: f64) -> Result<(), E> {
        self.note(number.to_string());
        Ok(())
    }

    fn visit_str<E>(mut self, text: &str) -> Result<(), E> {
        self.note(text);
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: &str = "{ \"a\" :1.50,\n\t\"callBackUrl\": \"https:\\/\\/x\" , \"b\":{\"c\": [1 ,2]} }";

    #[test]
    fn a_value_is_changed_and_nothing_else() {
        let members = members(TEXT).unwrap();
        assert_eq!(members[1].value(TEXT), "\"https:\\/\\/x\"");
        let changed = with_value(TEXT, &members[1], "\"y\"");
        assert_eq!(changed, "{ \"a\" :1.50,\n\t\"callBackUrl\": \"y\" , \"b\":{\"c\": [1 ,2]} }");
    }

    #[test]
    fn a_member_is_taken_out_wherever_it_stands() {
        let check = |index, expected: &str| {
            let members = members(TEXT).unwrap();
            let text = without(TEXT, &members, index);
            assert_eq!(text, expected);
            assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok());
        };
        check(0, "{ \"callBackUrl\": \"https:\\/\\/x\" , \"b\":{\"c\": [1 ,2]} }");
        check(1, "{ \"a\" :1.50 , \"b\":{\"c\": [1 ,2]} }");
        check(2, "{ \"a\" :1.50,\n\t\"callBackUrl\": \"https:\\/\\/x\" }");
        assert_eq!(without("{ \"a\": 1 }", &members("{ \"a\": 1 }").unwrap(), 0), "{  }");
    }

    #[test]
    fn names_that_stand_twice_are_found_however_they_are_spelt() {
        let doubled = |text: &str| match trouble(text) {
            Some(Trouble::Doubled(name)) => Some(name),
            other => other.map(|trouble| panic!("{trouble:?}")),
        };
        assert_eq!(doubled(r#"{"taskId": 1, "b": 2, "task\u0049d": 3}"#).as_deref(), Some("taskId"));
        assert_eq!(doubled(r#"{"a": {"b": 1}, "b": 2, "c": [null, true, 1.5, -1, "b", {"b": {}}]}"#), None);
        assert_eq!(doubled(r#"{"a": [1, {"b": {"c": 1, "d": "x", "c": 2}}]}"#).as_deref(), Some("c"));
        assert!(members("[1]").is_none() && members("{").is_none() && members("{} x").is_none());
    }

    /// Five million of them took a gigabyte, and a second in which nobody else was answered.
    #[test]
    fn values_are_counted_whatever_they_are() {
        let array = |item: &str, count: usize| format!("[{}]", vec![item; count].join(","));
        for item in ["1", "-1", "1.5", "\"a\"", "null", "true", "[]", "{}"] {
            assert_eq!(trouble(&array(item, MOST_VALUES - 1)), None, "{item}");
            assert_eq!(trouble(&array(item, MOST_VALUES)), Some(Trouble::TooMany), "{item}");
        }
        let doubled_first = format!("{{\"a\":0,\"a\":{}}}", array("0", MOST_VALUES));
        assert_eq!(trouble(&doubled_first), Some(Trouble::TooMany));
        let inner = serde_json::Value::from(array("123456", MOST_VALUES)).to_string();
        assert_eq!(texts(inner.as_bytes(), 4).unwrap().len(), 1, "what is in it is not looked for");
    }

    #[test]
    fn texts_are_found_in_each_place_and_in_texts_that_are_json() {
        let text = r#"{"name":"abc","n":[12345,-1234,1.25,1,null,true],"j":"{\"inner\":\"[\\\"deep\\\"]\"}","x":"[not json"}"#;
        let mut found = texts(text.as_bytes(), 4).unwrap();
        found.sort_unstable();
        let expected = [
            "-1234",
            "1.25",
            "12345",
            "[\"deep\"]",
            "[not json",
            "deep",
            "inner",
            "name",
            "{\"inner\":\"[\\\"deep\\\"]\"}",
        ];
        assert_eq!(found, expected);
        assert_eq!(texts(br#"{"a":"xxxx","a":"yyyy"}"#, 4).unwrap(), ["xxxx", "yyyy"]);
        for around in ["\u{a0}{} ", "\u{feff}{}\u{a0}"] {
            let text = serde_json::Value::from(around.replace("{}", r#"["deep"]"#)).to_string();
            assert!(texts(text.as_bytes(), 4).unwrap().contains(&"deep".to_owned()), "{around:?}");
        }
        let twice = serde_json::Value::from(serde_json::Value::from(r#"["deep"]"#).to_string()).to_string();
        assert!(texts(twice.as_bytes(), 4).unwrap().contains(&"deep".to_owned()));
        assert_eq!((texts(b"{} x", 4), texts(b"{\"a\":NaN}", 4)), (None, None));
    }

    proptest! {
        #[test]
        fn any_member_of_any_object_can_be_changed(
            names in proptest::collection::btree_set("[a-z\"\\\\]{0,4}", 1..5),
            place in any::<proptest::sample::Index>(),
        ) {
            let object: serde_json::Map<_, _> =
                names.iter().map(|name| (name.clone(), serde_json::json!([name]))).collect();
            let text = serde_json::to_string_pretty(&object).unwrap();
            let found = members(&text).unwrap();
            let index = place.index(found.len());
            let changed: serde_json::Map<_, _> =
                serde_json::from_str(&with_value(&text, &found[index], "true")).unwrap();
            let mut expected = object.clone();
            expected[&found[index].name] = true.into();
            prop_assert_eq!(changed, expected);
            let rest: serde_json::Map<_, _> =
                serde_json::from_str(&without(&text, &found, index)).unwrap();
            let mut expected = object;
            expected.shift_remove(&found[index].name);
            prop_assert_eq!(rest, expected);
        }
    }
}
