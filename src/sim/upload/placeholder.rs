//! What stands for a file that a URL names: nothing is fetched from outside. A file of the kind that the names promise,
//! the same for the same URL, on every machine.

use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;

use crate::clock::Draw;
use crate::media::{self, Format, Spec};

/// A file of type `content_type`, whose name ends in `extension`, in the place of what `url` leads to.
pub(super) fn file(url: &str, content_type: &str, extension: &str) -> Bytes {
    match format(content_type, extension) {
        Some(format) => media::render(&spec(url, format)),
        None => document(url, content_type),
    }
}

/// The nearest that can be drawn of pictures, videos and sounds.
fn format(content_type: &str, extension: &str) -> Option<Format> {
    let exactly = Format::from_name(content_type).or_else(|| Format::from_name(extension));
    exactly.or_else(|| match content_type.split('/').next()? {
        "image" => Some(Format::Png),
        "video" => Some(Format::Mp4),
        "audio" => Format::from_name("mp3").or_else(|| Format::from_name("wav")),
        _ => None,
    })
}

fn spec(url: &str, format: Format) -> Spec {
    let mut seed = Draw::new(&[b"placeholder", url.as_bytes()]);
    let shown = url.split(['?', '#']).next().unwrap_or_default();
    Spec {
        format,
        width: 1280,
        height: 720,
        duration: Duration::from_secs(5),
        audio: true,
        transparent: false,
        pictures: None,
        seed: u64::from_le_bytes(seed.bytes()),
        caption: vec!["placeholder for".to_owned(), shown.chars().take(120).collect()],
    }
}

fn document(url: &str, content_type: &str) -> Bytes {
    let shown = url.split(['?', '#']).next().unwrap_or_default();
    match content_type {
        "application/pdf" => pdf().into(),
        "application/json" => serde_json::json!({"placeholder_for": shown}).to_string().into(),
        _ => format!("A placeholder for {shown}\n").into(),
    }
}

/// An empty page.
///
/// Source: ISO 32000-1, 7.5 (header, body, cross-reference table, trailer).
fn pdf() -> String {
    let objects = [
        "<</Type/Catalog/Pages 2 0 R>>",
        "<</Type/Pages/Kids[3 0 R]/Count 1>>",
        "<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]>>",
    ];
    let mut text = "%PDF-1.4\n".to_owned();
    let mut table = "0000000000 65535 f \n".to_owned();
    for (number, object) in (1..).zip(objects) {
        let _ = writeln!(table, "{:010} 00000 n ", text.len());
        let _ = writeln!(text, "{number} 0 obj{object}endobj");
    }
    let (start, size) = (text.len(), objects.len() + 1);
    let _ = writeln!(
        text,
        "xref\n0 {size}\n{table}trailer<</Size {size}/Root 1 0 R>>\nstartxref\n{start}\n%%EOF"
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_decides_what_stands_there() {
        let check = |content_type: &str, extension: &str, start: &[u8]| {
            let made = file("https://example.com/x?key=1", content_type, extension);
            assert!(made.starts_with(start), "{content_type}: {:?}", &made[..made.len().min(16)]);
        };
        check("image/jpeg", "jpg", &[0xff, 0xd8, 0xff]);
        check("image/png", "png", b"\x89PNG");
        check("image/heic", "heic", b"\x89PNG");
        check("video/mp4", "mp4", b"\0\0\0");
        check("application/pdf", "pdf", b"%PDF-1.4");
        check("application/json", "json", b"{\"placeholder_for\":\"https://example.com/x\"}");
        check("text/plain", "txt", b"A placeholder for https://example.com/x\n");
        check("application/octet-stream", "bin", b"A placeholder");
    }

    #[test]
    fn the_table_of_the_pdf_leads_to_its_objects() {
        let text = pdf();
        let start: usize =
            text.rsplit("startxref\n").next().unwrap().lines().next().unwrap().parse().unwrap();
        let entries: Vec<&str> = text[start..].lines().skip(3).take(3).collect();
        for (number, entry) in (1..).zip(entries) {
            let at: usize = entry[..10].parse().unwrap();
            assert!(text[at..].starts_with(&format!("{number} 0 obj")), "{entry}");
            assert_eq!(entry.len(), 19, "twenty with the line's end");
        }
    }
}
