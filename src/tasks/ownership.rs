//! Whose the things are that a request names: tasks, ids and addresses that came out of them.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::Value;
use tokio::task::coop::consume_budget;

use crate::catalogue::{IdAt, IdKind, KnownBy};
use crate::clock::Timestamp;
use crate::ids::TenantId;
use crate::store::{Owner, Store, StoreError, Task};
use crate::tasks::body;
use crate::wire;

/// What is known of the things that a request names.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// It names none.
    Nothing,
    /// All are the tenant's own. The first among them.
    Own(Thing),
    /// One is somebody else's, or nobody's: as far as the tenant is concerned it does not exist.
    Foreign,
}

/// Something that somebody made.
#[derive(Clone, Debug)]
pub enum Thing {
    /// A task, by its id.
    Task(Arc<Task>),
    /// What came out of one, or was made without.
    Made(Owner),
}

impl Thing {
    /// Whose it is.
    pub fn tenant(&self) -> &TenantId {
        match self {
            Self::Task(task) => &task.tenant,
            Self::Made(owner) => &owner.tenant,
        }
    }

    /// The upstream key that made it; absent where it never went upstream.
    pub fn key(&self) -> Option<&str> {
        match self {
            Self::Task(task) => task.key.as_deref(),
            Self::Made(owner) => owner.key.as_deref(),
        }
    }
}

impl Verdict {
    /// What is known of all things, if `self` is known of some and `more` of the others.
    #[must_use]
    pub fn and(self, more: Self) -> Self {
        match (&self, &more) {
            (_, Self::Foreign) | (Self::Nothing, _) => more,
            _ => self,
        }
    }
}

/// The texts of a JSON body that may be ids; `None` if it is no JSON.
pub fn texts(body: &[u8]) -> Option<Vec<String>> {
    body::texts(body, SHORTEST)
}

/// Judges what the body `request` with these `texts` names on behalf of `tenant`: at `positions` it must be the tenant's own (or
/// nobody's, where it is not known what that is answered), and anywhere else it must not be somebody else's.
///
/// # Errors
/// The store cannot be reached.
pub async fn judge_body(
    store: &dyn Store,
    tenant: &TenantId,
    request: &Value,
    texts: &[String],
    positions: &[IdAt],
) -> Result<Verdict, StoreError> {
    let mut named: Named<'_> = Vec::new();
    for position in positions {
        named.extend(names(request, position).into_iter().map(|name| (Cow::Owned(name), position)));
    }
    let verdict = judge(store, tenant, named).await?;
    let texts = texts.iter().filter(|text| !is_prose(text));
    Ok(verdict.and(judge_texts(store, tenant, texts).await?))
}

/// As [`judge_body`], for a request that is all in its query.
///
/// # Errors
/// The store cannot be reached.
pub async fn judge_query(
    store: &dyn Store,
    tenant: &TenantId,
    query: &str,
    positions: &[IdAt],
) -> Result<Verdict, StoreError> {
    let (mut named, mut others) = (Named::new(), Vec::new());
    for (name, value) in wire::pairs(query).filter(|(_, value)| !value.is_empty()) {
        match positions.iter().find(|position| position.at.strip_prefix('/') == Some(&*name)) {
            Some(position) => named.push((value, position)),
            // Another spelling of the same, perhaps, as some servers understand it.
            None => others.push(value),
        }
    }
    let verdict = judge(store, tenant, named).await?;
    let words: Vec<&str> = others.iter().flat_map(|other| pieces(other)).collect();
    Ok(verdict.and(judge_words(store, tenant, words).await?))
}

/// What a request names, each with the place where it does.
type Named<'r> = Vec<(Cow<'r, str>, &'r IdAt)>;

async fn judge(store: &dyn Store, tenant: &TenantId, named: Named<'_>) -> Result<Verdict, StoreError> {
    let mut verdict = Verdict::Nothing;
    for (name, position) in named {
        match find(store, &name, position.kind).await? {
            Some(thing) if thing.tenant() == tenant => {
                if matches!(verdict, Verdict::Nothing) {
                    verdict = Verdict::Own(thing);
                }
            }
            // Everybody may name a preset, also one that an answer to somebody else has shown.
            Some(_) if position.kind == IdKind::MadeOrPreset && !is_unguessable(&name) => {}
            // What nobody is known to have made may be a preset, or older than the gateway: upstream knows. But it may be a
            // list, or another's spelt in another way.
            None if position.known_by == KnownBy::Declaration => {
                let words: Vec<&str> = words_of_text(&name).collect();
                if let Verdict::Foreign = judge_words(store, tenant, words).await? {
                    return Ok(Verdict::Foreign);
                }
            }
            _ => return Ok(Verdict::Foreign),
        }
    }
    Ok(verdict)
}

/// The words of a text that may be ids: all of it, what stands between signs that servers split lists at, and whatever is
/// long and in one piece.
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let listed = text.split([';', '&', '=', ',', ':']);
    let long = text.split(|sign| !is_of_id(sign)).filter(|piece| piece.len() >= LONG);
    let all = std::iter::once(text).chain(listed.chain(long).filter(|piece| piece.len() < text.len()));
    all.filter(|piece| (SHORTEST..=LONGEST + AROUND).contains(&piece.len()))
}

/// A piece of a text that is at least as long may be an id, whatever stands around it.
const LONG: usize = 16;
/// So many signs may stand around an id, such as blanks.
const AROUND: usize = 32;

/// The same of a text in JSON. What is said of an address there says nothing of what the request is about: whoever has one can
/// fetch what it leads to.
fn words_of_text(text: &str) -> impl Iterator<Item = &str> {
    text.split_whitespace().filter(|part| !part.contains("://")).flat_map(pieces)
}

/// Whether a text is written for readers, so that an id in it is spoken of and not meant: it is no list of single words, and
/// nothing that a program might read.
fn is_prose(text: &str) -> bool {
    let is_structured = || text.contains('{') || text.trim_start().starts_with(['[', '"', '\u{feff}']);
    let is_word = |item: &str| !item.trim().contains(char::is_whitespace);
    let is_list = || text.split([',', ';', '|', '\n']).all(is_word);
    let is_all_ids =
        || text.split_whitespace().all(|part| is_unguessable(part.trim_matches(|sign| !is_of_id(sign))));
    // Not all languages put blanks between words.
    let is_of_words =
        text.trim().contains(|sign: char| sign.is_whitespace() || (!sign.is_ascii() && sign.is_alphabetic()));
    if !is_of_words || is_structured() {
        return false;
    }
    !text.is_ascii() || !(is_list() || is_all_ids())
}

/// Judges what a path and a query name, whatever they mean: no part of them, decoded, may be somebody else's.
///
/// # Errors
/// The store cannot be reached.
pub async fn judge_address(
    store: &dyn Store,
    tenant: &TenantId,
    path: &str,
    query: &str,
) -> Result<Verdict, StoreError> {
    let decoded = percent_encoding::percent_decode_str(path).decode_utf8_lossy();
    let pairs: Vec<_> = wire::pairs(query).collect();
    let of_path = decoded.split('/').flat_map(pieces);
    let of_query = pairs.iter().flat_map(|(name, value)| pieces(name).chain(pieces(value)));
    let words: Vec<&str> = of_path.chain(of_query).collect();
    judge_words(store, tenant, words).await
}

/// What a body says of which nobody knows what it means.
pub enum Said {
    /// The texts of JSON.
    Texts(Vec<String>),
    /// Anything else, which others may read as JSON, or as the values of a form.
    Text(String),
}

impl Said {
    /// What `body` says.
    pub fn of(body: &[u8]) -> Self {
        if let Some(texts) = texts(body) {
            return Self::Texts(texts);
        }
        // In UTF-16 each second byte is 0.
        let bytes: Vec<u8> = body.iter().copied().filter(|byte| *byte != 0).collect();
        Self::Text(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// Judges what a body names of which nobody knows what it means: whatever looks like an id in it.
///
/// # Errors
/// The store cannot be reached.
pub async fn judge_unread(store: &dyn Store, tenant: &TenantId, said: &Said) -> Result<Verdict, StoreError> {
    let text = match said {
        Said::Texts(texts) => return judge_texts(store, tenant, texts.iter()).await,
        Said::Text(text) => text,
    };
    let values: Vec<_> = wire::pairs(text).map(|(_, value)| value).collect();
    let words: Vec<&str> = pieces(text).chain(values.iter().flat_map(|value| pieces(value))).collect();
    judge_words(store, tenant, words).await
}

/// Judges what the texts of a body name.
async fn judge_texts(
    store: &dyn Store,
    tenant: &TenantId,
    texts: impl Iterator<Item = &String>,
) -> Result<Verdict, StoreError> {
    let mut verdict = Verdict::Nothing;
    for text in texts {
        let words: Vec<&str> = words_of_text(text).collect();
        verdict = verdict.and(judge_words(store, tenant, words).await?);
        if matches!(verdict, Verdict::Foreign) {
            break;
        }
    }
    Ok(verdict)
}

/// Judges what is named by words that may or may not be ids: what nobody is known to have made is none, and nor is what
/// anybody might say without having been told, such as the number of a speaker. Addresses do not count: whoever has one can
/// fetch what it leads to.
async fn judge_words(store: &dyn Store, tenant: &TenantId, words: Vec<&str>) -> Result<Verdict, StoreError> {
    let mut verdict = Verdict::Nothing;
    for word in words {
        // There may be millions, and others want to go on as well.
        consume_budget().await;
        verdict = verdict.and(judge_word(store, tenant, word).await?);
        if matches!(verdict, Verdict::Foreign) {
            break;
        }
    }
    Ok(verdict)
}

async fn judge_word(store: &dyn Store, tenant: &TenantId, word: &str) -> Result<Verdict, StoreError> {
    let mut verdict = Verdict::Nothing;
    for word in spellings(word) {
        let thing = match store.by_id(&word).await? {
            Some(task) => Some(Thing::Task(task)),
            None if is_unguessable(&word) => store.made_by(&word).await?.map(Thing::Made),
            None => None,
        };
        match thing {
            Some(thing) if thing.tenant() != tenant => return Ok(Verdict::Foreign),
            // What never went upstream says nothing of the way there.
            Some(thing) if thing.key().is_some() => {
                // A word is no task that the request is about.
                let owner = Owner { tenant: thing.tenant().clone(), key: thing.key().map(Into::into) };
                verdict = verdict.and(Verdict::Own(Thing::Made(owner)));
            }
            _ => {}
        }
    }
    Ok(verdict)
}

/// The ids that a word may be for a server that is not particular: it may cut off what stands around one, and compare without
/// regard to case. The upstream's ids that have been recorded have small letters only; one with capitals is known as it is.
fn spellings(word: &str) -> impl Iterator<Item = Cow<'_, str>> {
    let bare = word.trim_matches(|sign: char| !is_of_id(sign));
    let has_capitals = may_be_id(bare) && bare.bytes().any(|byte| byte.is_ascii_uppercase());
    let small = has_capitals.then(|| Cow::Owned(bare.to_ascii_lowercase()));
    let bare = (bare.len() < word.len()).then_some(bare);
    let all = [Some(word), bare].into_iter().flatten().filter(|spelling| may_be_id(spelling));
    all.map(Cow::Borrowed).chain(small)
}

/// Whether most ids are made of signs like that.
fn is_of_id(sign: char) -> bool {
    sign.is_ascii_alphanumeric() || matches!(sign, '-' | '_')
}

/// Whether a word has the length of an id and only signs that ids have.
fn may_be_id(word: &str) -> bool {
    (SHORTEST..=LONGEST).contains(&word.len())
        && word.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/')
}

/// Whether a name looks as if it had been drawn at random, as the upstream's ids do: UUIDs, long hexadecimal numbers. Letters of
/// both cases with few digits are names of voices that everybody may choose.
fn is_unguessable(name: &str) -> bool {
    const LONG: usize = 16;
    const DIGITS: usize = 4;
    let is_hex = || name.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    name.len() >= LONG && (name.bytes().filter(u8::is_ascii_digit).count() >= DIGITS || is_hex())
}

async fn find(store: &dyn Store, name: &str, kind: IdKind) -> Result<Option<Thing>, StoreError> {
    if kind == IdKind::Task
        && let Some(task) = store.by_id(name).await?
    {
        return Ok(Some(Thing::Task(task)));
    }
    Ok(store.made_by(name).await?.map(Thing::Made))
}

/// What `request` names at `position`; a text that is empty, as upstream sees it too, names nothing.
fn names(request: &Value, position: &IdAt) -> Vec<String> {
    fn of(value: &Value) -> Vec<String> {
        match value {
            Value::String(text) if !text.is_empty() => vec![text.clone()],
            Value::Number(number) => vec![number.to_string()],
            Value::Array(items) => items.iter().flat_map(of).collect(),
            _ => Vec::new(),
        }
    }
    request.pointer(&position.at).map(of).unwrap_or_default()
}

/// Shorter texts are no ids.
const SHORTEST: usize = 6;
/// Nor are longer ones.
const LONGEST: usize = 128;

/// Remembers that the ids and addresses in `body` are `owner`'s, but for those that it had put into `request` itself,
/// wherever and however: records show what they were asked for, too. Of a request that is not remembered any more nobody can
/// say what was in it, so nothing is learned.
///
/// # Errors
/// The store cannot be reached.
pub async fn learn(
    store: &dyn Store,
    owner: &Owner,
    request: &[u8],
    body: &Value,
    now: Timestamp,
) -> Result<(), StoreError> {
    if request.is_empty() {
        return Ok(());
    }
    let mut made = Vec::new();
    collect(body, "", &mut made);
    if made.is_empty() {
        return Ok(());
    }
    let named = texts(request).unwrap_or_default();
    made.retain(|made| !named.iter().any(|named| named.contains(made.as_str())));
    let made: Vec<&str> = made.iter().map(String::as_str).collect();
    if made.is_empty() { Ok(()) } else { store.learn(owner, &made, now).await }
}

/// The JSON that a text is.
fn inner(text: &str) -> Option<Value> {
    let text = text.trim();
    if text.starts_with(['{', '[']) { serde_json::from_str(text).ok() } else { None }
}

/// Addresses, and texts under a name that ends in `id` or `ids`; also inside of texts that are JSON by their name. In others a
/// tenant might have had a model write whatever it likes.
fn collect(value: &Value, name: &str, made: &mut Vec<String>) {
    match value {
        Value::Object(members) => members.iter().for_each(|(name, value)| collect(value, name, made)),
        Value::Array(items) => items.iter().for_each(|item| collect(item, name, made)),
        Value::String(text) => {
            let lower = name.to_ascii_lowercase();
            if lower.ends_with("json")
                && let Some(inner) = inner(text)
            {
                return collect(&inner, "", made);
            }
            let is_id = (lower.ends_with("id") || lower.ends_with("ids")) && !is_of_all(&lower);
            let is_address = text.starts_with("https://") || text.starts_with("http://");
            if text.len() >= SHORTEST && (is_id || is_address) {
                made.push(text.clone());
            }
        }
        _ => {}
    }
}

/// Whether what has that name, in lower case, is the same for everybody: what a task was made with, not what came out of it.
fn is_of_all(name: &str) -> bool {
    const OF_ALL: [&str; 9] =
        ["effect", "lang", "language", "locale", "model", "preset", "speaker", "style", "template"];
    let of = name.trim_end_matches('s').trim_end_matches("id").trim_end_matches(['_', '-']);
    OF_ALL.iter().any(|word| of.ends_with(word))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// One tenant's speakers were its own, and whoever spoke of them heard from nowhere.
    #[tokio::test]
    async fn what_anybody_might_say_is_nobodys() {
        const ID: &str = "0123456789abcdef0123456789abcdef";
        let store = crate::store::Embedded::default();
        let [acme, other] = ["acme", "other"].map(TenantId::new);
        let owner = Owner { tenant: acme.clone(), key: Some("main".into()) };
        let record = json!({"data": {"modelId": "doubao-seedance-1-0-pro-250528", "voice_id": "voice_0",
                                     "resultJson": json!({"words": [{"speaker_id": "speaker_0"}], "trackId": ID}).to_string(),
                                     "lyrics": json!({"id": "gpt-4o-2024-08-06"}).to_string()}});
        learn(&store, &owner, b"{}", &record, Timestamp::default()).await.unwrap();
        let judged = async |text: &str| {
            let body = json!({"deep": [{"meta": text}]}).to_string();
            judge_unread(&store, &other, &Said::of(body.as_bytes())).await.unwrap()
        };
        assert!(matches!(judged("speaker_0").await, Verdict::Nothing));
        for said in ["gpt-4o-2024-08-06", "doubao-seedance-1-0-pro-250528", "voice_0"] {
            assert!(matches!(judged(said).await, Verdict::Nothing), "{said}");
        }
        assert!(matches!(judged(ID).await, Verdict::Foreign));
        let preset = |kind| IdAt { at: "/voice".into(), kind, known_by: KnownBy::Declaration };
        let named = async |name: &str, kind| {
            judge_body(&store, &other, &json!({"voice": name}), &[], &[preset(kind)]).await.unwrap()
        };
        assert!(matches!(named("voice_0", IdKind::MadeOrPreset).await, Verdict::Nothing));
        assert!(matches!(named("voice_0", IdKind::Made).await, Verdict::Foreign));
        assert!(matches!(named(ID, IdKind::MadeOrPreset).await, Verdict::Foreign));
    }

    #[test]
    fn what_looks_drawn_at_random_is_no_word() {
        for id in [
            "0123456789abcdef0123456789abcdef",
            "bbbbbbbbbbbbbbbb",
            "550e8400-e29b-41d4-a716-446655440000",
            "veo_task_abcdef123456",
        ] {
            assert!(is_unguessable(id), "{id}");
        }
        for word in [
            "speaker_0",
            "eleven_multilingual_v2",
            "EnglishFemaleNarrator",
            "EXAVITQu4vr4xnSDxMaL",
            "kling/v2-1-master",
            "task12345678",
        ] {
            assert!(!is_unguessable(word), "{word}");
        }
    }

    /// Servers that trim, or compare without regard to case, would have answered for the other tenant.
    #[tokio::test]
    async fn an_id_is_known_however_it_is_spelt_and_whatever_stands_around_it() {
        const ID: &str = "0123456789abcdef0123456789abcdef";
        let store = crate::store::Embedded::default();
        let [acme, other] = ["acme", "other"].map(TenantId::new);
        let owner = Owner { tenant: acme, key: Some("main".into()) };
        store.learn(&owner, &[ID], Timestamp::default()).await.unwrap();
        let is_foreign = async |request: Value| {
            let texts = texts(request.to_string().as_bytes()).unwrap();
            let verdict = judge_body(&store, &other, &request, &texts, &[]).await.unwrap();
            matches!(verdict, Verdict::Foreign)
        };
        let capitals = ID.to_ascii_uppercase();
        for said in [
            format!("{ID} "),
            format!("\t{capitals}\n"),
            format!("\u{a0}{ID}\0"),
            format!("\"{ID}\","),
            format!("x,{ID}"),
            format!("{ID} {capitals}, {ID}"),
            format!("{ID} , x"),
            format!("2, all, {ID}"),
            format!("\u{feff}{{\"taskId\": \"{ID}\"}}"),
            format!("\"{{\\\"taskId\\\": \\\"{ID}\\\"}}\""),
            format!("query {{ task(id: \"{ID}\") {{ state }} }}"),
            format!("/details?taskId={ID}"),
            format!("{{task(id:\"{ID}\") {{state}}}}"),
            format!("{{\"task_id\": \"{ID}\", \"n\": NaN}}"),
        ] {
            assert!(is_foreign(json!({"deep": [{"input": said}]})).await, "{said}");
        }
        // Whoever speaks of it in a prompt means no task.
        let prose = format!("explain why task {ID} of the others failed");
        assert!(!is_foreign(json!({"prompt": prose})).await);
        assert!(!is_foreign(json!({"prompt": format!("為什麼任務{ID}失敗了")})).await);
        let declared = IdAt { at: "/personaId".into(), kind: IdKind::Made, known_by: KnownBy::Declaration };
        let list = json!({"personaId": format!("{ID} and others of that kind")});
        let verdict = judge_body(&store, &other, &list, &[], &[declared]).await.unwrap();
        assert!(matches!(verdict, Verdict::Foreign), "there it is no prose");
        let said = Said::of(json!({"prompt": prose}).to_string().as_bytes());
        let unread = judge_unread(&store, &other, &said).await;
        assert!(matches!(unread.unwrap(), Verdict::Foreign), "nobody knows what that is");
        for address in [format!("https://files.test/{ID}.mp4"), format!("like this: https://files.test/{ID}")]
        {
            assert!(!is_foreign(json!({"url": address})).await, "{address}");
        }
        assert!(!is_foreign(json!({"prompt": format!("x{ID}")})).await);
    }

    /// Each is read by some server or other.
    #[tokio::test]
    async fn ids_are_found_in_whatever_may_be_read() {
        const ID: &str = "0123456789abcdef0123456789abcdef";
        let store = crate::store::Embedded::default();
        let [acme, other] = ["acme", "other"].map(TenantId::new);
        let owner = Owner { tenant: acme, key: Some("main".into()) };
        store.learn(&owner, &[ID], Timestamp::default()).await.unwrap();
        let json = format!("{{\"a\":[\"{ID}\"]}}");
        let utf_16: Vec<u8> = json.encode_utf16().flat_map(u16::to_le_bytes).collect();
        for body in [
            json.clone().into_bytes(),
            format!("\u{feff}{json}").into_bytes(),
            utf_16,
            format!("{json} {{}}").into_bytes(),
            format!("{{/* hm */\"a\":NaN,\"b\":\"{ID}\"}}").into_bytes(),
            [json.as_bytes(), b"\xff"].concat(),
            format!("x=1&a={ID}").into_bytes(),
        ] {
            let verdict = judge_unread(&store, &other, &Said::of(&body)).await.unwrap();
            assert!(matches!(verdict, Verdict::Foreign), "{}", String::from_utf8_lossy(&body));
        }
        for (path, query) in [
            ("/x", format!("a={ID}")),
            ("/x", ID.to_owned()),
            ("/x", format!("x[{ID}]=1")),
            ("/x/%3Fid=0123456789ABCDEF0123456789abcdef", String::new()),
        ] {
            let verdict = judge_address(&store, &other, path, &query).await.unwrap();
            assert!(matches!(verdict, Verdict::Foreign), "{path}?{query}");
        }
        assert!(matches!(judge_address(&store, &other, "/x", "a=b").await.unwrap(), Verdict::Nothing));
    }
}
