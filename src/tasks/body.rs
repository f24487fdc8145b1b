//! Changing one member of a JSON body without touching another byte of it.
//!
//! What upstream gets is what the client wrote, down to its white space: a body that is parsed and written again
//! loses the order of keys, the spelling of numbers, and whatever only the upstream understands.

use std::fmt;
use std::ops::Range;

use serde::Deserializer as _;
use serde::de::{MapAccess, Visitor};
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
            let name = serde_json::from_str(name.get()).map_err(serde::de::Error::custom)?;
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

/// The first name that stands twice among the members, if one does: readers disagree on which of them counts.
pub fn doubled(members: &[Member]) -> Option<&str> {
    let mut names: Vec<&str> = members.iter().map(|member| member.name.as_str()).collect();
    names.sort_unstable();
    names.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0])
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
        let doubled_in = |text| doubled(&members(text).unwrap()).map(str::to_owned);
        assert_eq!(doubled_in(r#"{"taskId": 1, "b": 2, "task\u0049d": 3}"#).as_deref(), Some("taskId"));
        assert_eq!(doubled_in(r#"{"a": {"b": 1}, "b": 2}"#), None);
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
