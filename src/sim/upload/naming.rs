//! What an uploaded file is called and which type it has. Pure.
//!
//! Names come from strangers: what is made of them here has no parts that lead elsewhere.

use crate::clock::Draw;

/// What stands for a file of unknown kind.
pub(super) const UNKNOWN_TYPE: &str = "application/octet-stream";
const UNKNOWN_EXTENSION: &str = "bin";

/// Extensions and the type that goes with them; the first extension of a type is the usual one.
///
/// Source: the media types registry of IANA, and what web servers commonly send where it has none.
const TYPES: &[(&str, &str)] = &[
    ("png", "image/png"),
    ("jpg", "image/jpeg"),
    ("jpeg", "image/jpeg"),
    ("jpg", "image/jpg"),
    ("webp", "image/webp"),
    ("gif", "image/gif"),
    ("bmp", "image/bmp"),
    ("svg", "image/svg+xml"),
    ("avif", "image/avif"),
    ("heic", "image/heic"),
    ("heif", "image/heif"),
    ("tiff", "image/tiff"),
    ("tif", "image/tiff"),
    ("ico", "image/x-icon"),
    ("mp4", "video/mp4"),
    ("m4v", "video/mp4"),
    ("mov", "video/quicktime"),
    ("webm", "video/webm"),
    ("mkv", "video/x-matroska"),
    ("avi", "video/x-msvideo"),
    ("mpeg", "video/mpeg"),
    ("mpg", "video/mpeg"),
    ("mp3", "audio/mpeg"),
    ("mp3", "audio/mp3"),
    ("wav", "audio/wav"),
    ("wav", "audio/x-wav"),
    ("m4a", "audio/mp4"),
    ("m4a", "audio/x-m4a"),
    ("aac", "audio/aac"),
    ("ogg", "audio/ogg"),
    ("oga", "audio/ogg"),
    ("opus", "audio/opus"),
    ("flac", "audio/flac"),
    ("mid", "audio/midi"),
    ("midi", "audio/midi"),
    ("txt", "text/plain"),
    ("csv", "text/csv"),
    ("html", "text/html"),
    ("htm", "text/html"),
    ("css", "text/css"),
    ("md", "text/markdown"),
    ("srt", "application/x-subrip"),
    ("vtt", "text/vtt"),
    ("js", "text/javascript"),
    ("json", "application/json"),
    ("xml", "application/xml"),
    ("pdf", "application/pdf"),
    ("zip", "application/zip"),
    ("gz", "application/gzip"),
    ("tar", "application/x-tar"),
    ("doc", "application/msword"),
    ("docx", "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
    ("xlsx", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
    ("pptx", "application/vnd.openxmlformats-officedocument.presentationml.presentation"),
];

/// The type that a name's extension stands for.
pub(super) fn type_of_name(name: &str) -> Option<&'static str> {
    let extension = extension(name)?;
    TYPES.iter().find(|(known, _)| known.eq_ignore_ascii_case(extension)).map(|(_, kind)| *kind)
}

/// The usual extension for a type.
pub(super) fn extension_of_type(content_type: &str) -> &'static str {
    let found = TYPES.iter().find(|(_, known)| known.eq_ignore_ascii_case(content_type));
    found.map_or(UNKNOWN_EXTENSION, |(extension, _)| *extension)
}

/// The end of a name behind its last dot: 1 to 16 ASCII letters and digits.
pub(super) fn extension(name: &str) -> Option<&str> {
    let (stem, extension) = name.rsplit_once('.')?;
    let fits =
        (1..=16).contains(&extension.len()) && extension.bytes().all(|byte| byte.is_ascii_alphanumeric());
    (fits && !stem.is_empty()).then_some(extension)
}

/// A media type without its parameters, in small letters; `None` if it is none.
pub(super) fn bare_type(text: &str) -> Option<String> {
    let bare = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let is_token = |part: &str| {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte);
        (1..=63).contains(&part.len()) && part.bytes().all(fits)
    };
    let (kind, subtype) = bare.split_once('/')?;
    (is_token(kind) && is_token(subtype)).then_some(bare)
}

/// The name of a file as its host keeps it: one part of a path.
pub(super) fn file_name(wish: &str) -> String {
    match wish {
        "." | ".." => wish.replace('.', "_"),
        _ => wish.replace(|sign: char| sign == '/' || sign == '\\' || sign.is_control(), "_"),
    }
}

/// The folder that a client wants, as its host keeps it: one or more parts with `/` between them.
pub(super) fn folder(wish: &str) -> String {
    let parts: Vec<String> = wish.split('/').filter(|part| !part.is_empty()).map(file_name).collect();
    if parts.is_empty() { "_".to_owned() } else { parts.join("/") }
}

/// The random part of a made-up name: 9 to 11 characters of base 36.
///
/// Source: three names recorded in April 2026 have 9, 10 and 11.
pub(super) fn token(draw: &mut Draw) -> String {
    const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let length = draw.integer(9, 11);
    let mut digit = || char::from(DIGITS[usize::try_from(draw.integer(0, 35)).unwrap_or_default()]);
    (0..length).map(|_| digit()).collect()
}

/// What a text of base64 is: the type that a data URL names, and the base64 itself; `None` for a data URL that is
/// not in base64.
pub(super) fn data_url(text: &str) -> Option<(Option<String>, &str)> {
    let is_one = text.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("data:"));
    if !is_one {
        return Some((None, text));
    }
    let (head, data) = text[5..].split_once(',')?;
    let (kind, encoding) = head.rsplit_once(';')?;
    encoding.trim().eq_ignore_ascii_case("base64").then(|| (bare_type(kind), data))
}

/// The file name in a `Content-Disposition` that has it as `filename*=charset'language'name`, taken for UTF-8.
///
/// Source: RFC 6266, 4.3; RFC 7578 wants no such thing in forms, and some clients send it for names beyond ASCII.
pub(super) fn extended_file_name(disposition: &str) -> Option<String> {
    let parameters = disposition.split(';').filter_map(|parameter| parameter.trim().split_once('='));
    let (_, value) = parameters.into_iter().find(|(name, _)| name.eq_ignore_ascii_case("filename*"))?;
    let name = value.trim_matches('"').splitn(3, '\'').nth(2)?;
    Some(percent_encoding::percent_decode_str(name).decode_utf8_lossy().into_owned())
}

/// The last part of a URL's path, decoded; empty if it has none.
pub(super) fn name_in_url(url: &str) -> String {
    let path = super::super::download::path_of(url).unwrap_or_default();
    let last = path.rsplit('/').next().unwrap_or_default();
    percent_encoding::percent_decode_str(last).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use std::path::{Component, Path};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn types_go_by_the_extension() {
        let check = |name: &str, expected: Option<&str>| assert_eq!(type_of_name(name), expected, "{name}");
        check("test.txt", Some("text/plain"));
        check("test-base64.PNG", Some("image/png"));
        check("a.b.jpeg", Some("image/jpeg"));
        check("photo", None);
        check(".png", None);
        check("x.", None);
        check("x.unheard-of", None);
        assert_eq!(extension_of_type("image/jpeg"), "jpg");
        assert_eq!(extension_of_type("audio/mpeg"), "mp3");
        assert_eq!(extension_of_type("model/x"), "bin");
    }

    #[test]
    fn a_data_url_names_its_type() {
        let check = |text: &str, expected: Option<(Option<&str>, &str)>| {
            let found = data_url(text);
            let found = found.as_ref().map(|(kind, data)| (kind.as_deref(), *data));
            assert_eq!(found, expected, "{text}");
        };
        check("SGVsbG8=", Some((None, "SGVsbG8=")));
        check("data:image/png;base64,iVBO", Some((Some("image/png"), "iVBO")));
        check("DATA:Text/Plain;charset=utf-8;BASE64,QQ==", Some((Some("text/plain"), "QQ==")));
        check("data:;base64,QQ==", Some((None, "QQ==")));
        check("data:image/png,QQ==", None);
        check("data:image/png;base64", None);
    }

    #[test]
    fn only_media_types_are_types() {
        let check = |text: &str, expected: Option<&str>| assert_eq!(bare_type(text).as_deref(), expected);
        check("Image/PNG; name=x", Some("image/png"));
        check("image", None);
        check("image/", None);
        check("image/p ng", None);
        check("image/png\r\nx: y", None);
        check(&format!("image/{}", "x".repeat(64)), None);
    }

    #[test]
    fn a_name_may_come_in_the_extended_form() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(extended_file_name(text).as_deref(), expected, "{text}");
        };
        check("form-data; name=\"file\"; filename*=UTF-8''%e2%82%ac.png", Some("\u{20ac}.png"));
        check("form-data; name=\"file\"; FILENAME*=utf-8'en'a.png; x=y", Some("a.png"));
        check("form-data; name=\"file\"", None);
        check("form-data; filename*=a.png", None);
    }

    #[test]
    fn names_lead_nowhere_else() {
        assert_eq!(file_name("my image.jpg"), "my image.jpg");
        assert_eq!(file_name("../../etc/passwd"), ".._.._etc_passwd");
        assert_eq!(file_name("C:\\x\0.png"), "C:_x_.png");
        assert_eq!(file_name(".."), "__");
        assert_eq!(folder("images/../a//b"), "images/__/a/b");
        assert_eq!(folder("///"), "_");
        assert_eq!(name_in_url("https://example.com/a/my%20cat.png?x=1.gif"), "my cat.png");
        assert_eq!(name_in_url("https://example.com"), "");
    }

    proptest! {
        #[test]
        fn any_name_stays_inside(wish in any::<String>(), name in any::<String>()) {
            let stored = format!("{}/{}", folder(&wish), file_name(&name));
            let normal = |part: Component<'_>| matches!(part, Component::Normal(_));
            prop_assert!(Path::new(&stored).components().all(normal), "{stored}");
            prop_assert!(!stored.contains('\0'));
        }

        #[test]
        fn a_token_looks_like_the_recorded_ones(seed in any::<[u8; 8]>()) {
            let token = token(&mut Draw::new(&[&seed]));
            prop_assert!((9..=11).contains(&token.len()));
            prop_assert!(token.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_lowercase()));
        }
    }
}
