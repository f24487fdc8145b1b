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

/// The first name that stands twice in an object, anywhere in the JSON `text`, if one does: readers disagree on which of them
/// counts.
pub fn doubled(text: &str) -> Option<String> {
    let mut found = None;
    let mut reader = serde_json::Deserializer::from_str(text);
    // It ends where one is found; other errors are not looked for here.
    let _ = Walk(&mut found).deserialize(&mut reader);
    found
}

/// Goes through a value, and notes a name that stands twice.
struct Walk<'w>(&'w mut Option<String>);

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, value: D) -> Result<(), D::Error> {
        value.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("any value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let mut names = HashSet::new();
        while let Some(name) = members.next_key::<String>()? {
            if names.contains(&name) {
                *self.0 = Some(name);
                return Err(Error::custom("a name stands twice"));
            }
            names.insert(name);
            members.next_value_seed(Walk(self.0))?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(Walk(self.0))?.is_some() {}
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
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
        assert_eq!(doubled(r#"{"taskId": 1, "b": 2, "task\u0049d": 3}"#).as_deref(), Some("taskId"));
        assert_eq!(doubled(r#"{"a": {"b": 1}, "b": 2, "c": [null, true, 1.5, -1, "b", {"b": {}}]}"#), None);
        assert_eq!(doubled(r#"{"a": [1, {"b": {"c": 1, "d": "x", "c": 2}}]}"#).as_deref(), Some("c"));
        assert!(members("[1]").is_none() && members("{").is_none() && members("{} x").is_none());
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
