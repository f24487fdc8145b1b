//! From a method and a path to an operation.

use std::borrow::Cow;
use std::collections::HashMap;

use http::Method;

use super::OperationIx;

/// What a method and a path lead to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolved {
    /// An operation.
    Operation(OperationIx),
    /// A path that exists, under other methods.
    WrongMethod,
    /// Nothing.
    Unknown,
}

/// All paths. An exact one wins over a pattern, a longer pattern over a shorter one.
#[derive(Debug, Default)]
pub(super) struct Routes {
    exact: HashMap<String, Vec<(Method, OperationIx)>, ahash::RandomState>,
    /// Exact paths by their folded form.
    folded: HashMap<String, String>,
    /// Longest first.
    patterns: Vec<Pattern>,
}

/// A path with one variable part, which is one character or more and may hold slashes: names of models do.
#[derive(Debug)]
struct Pattern {
    before: String,
    name: String,
    after: String,
    method: Method,
    operation: OperationIx,
}

impl Routes {
    /// Takes in a path; false if it is there already under this method.
    pub(super) fn add(&mut self, path: &str, method: &Method, operation: OperationIx) -> bool {
        let parts = path.split_once('{').and_then(|(before, rest)| {
            let (name, after) = rest.split_once('}')?;
            Some((before, name, after))
        });
        let Some((before, name, after)) = parts else {
            self.folded.insert(fold(path), path.to_owned());
            let methods = self.exact.entry(path.to_owned()).or_default();
            let new = methods.iter().all(|(there, _)| there != method);
            methods.push((method.clone(), operation));
            return new;
        };
        let (before, name, after) = (before.to_owned(), name.to_owned(), after.to_owned());
        let pattern = Pattern { before, name, after, method: method.clone(), operation };
        let new = self.patterns.iter().all(|there| !there.same_as(&pattern));
        let length = |pattern: &Pattern| pattern.before.len() + pattern.after.len();
        let place = self.patterns.partition_point(|there| length(there) >= length(&pattern));
        self.patterns.insert(place, pattern);
        new
    }

    pub(super) fn resolve(&self, method: &Method, path: &str) -> Resolved {
        if let Some(choices) = self.exact.get(path) {
            let found = choices.iter().find(|(of, _)| of == method);
            return found.map_or(Resolved::WrongMethod, |(_, operation)| Resolved::Operation(*operation));
        }
        match self.matching(method, path) {
            Some((pattern, _)) => Resolved::Operation(pattern.operation),
            None if self.patterns.iter().any(|pattern| pattern.text(path).is_some()) => Resolved::WrongMethod,
            None => Resolved::Unknown,
        }
    }

    /// The path that `path`, which is none of them, is another spelling of: with parts that are encoded without need, doubled
    /// slashes, `..` and the like. Servers differ in which of them they put up with.
    pub(super) fn meant_by(&self, path: &str) -> Option<String> {
        if self.resolve(&Method::GET, path) != Resolved::Unknown {
            return None;
        }
        let folded = fold(path);
        // Some take the form of the answer from an ending such as `.json`.
        let ending = folded.rsplit_once('.').filter(|(_, ending)| !ending.contains('/'));
        let spellings = [Some(&*folded), ending.map(|(path, _)| path)];
        let exact = spellings.into_iter().flatten().find_map(|spelling| self.folded.get(spelling).cloned());
        exact.or_else(|| spellings.into_iter().flatten().find_map(|spelling| self.pattern_of(spelling)))
    }

    /// The pattern that a folded path fits.
    fn pattern_of(&self, folded: &str) -> Option<String> {
        let fits = |pattern: &&Pattern| {
            let before = fold(&pattern.before);
            let slash = if pattern.before.ends_with('/') { "/" } else { "" };
            let (before, after) =
                (before.trim_end_matches('/').to_owned() + slash, pattern.after.to_lowercase());
            folded.len() > before.len() + after.len()
                && folded.starts_with(&before)
                && folded.ends_with(&after)
        };
        let Pattern { before, name, after, .. } = self.patterns.iter().find(fits)?;
        Some(format!("{before}{{{name}}}{after}"))
    }

    /// Name and decoded text of the variable part of `path`, unless the path is an exact one.
    pub(super) fn parameter<'p>(&self, method: &Method, path: &'p str) -> Option<(&str, Cow<'p, str>)> {
        if self.patterns.is_empty() || self.exact.contains_key(path) {
            return None;
        }
        let (pattern, text) = self.matching(method, path)?;
        let decoded = percent_encoding::percent_decode_str(text).decode_utf8_lossy();
        Some((&pattern.name, decoded))
    }

    fn matching<'p>(&self, method: &Method, path: &'p str) -> Option<(&Pattern, &'p str)> {
        let of_method = self.patterns.iter().filter(|pattern| pattern.method == *method);
        of_method.into_iter().find_map(|pattern| Some((pattern, pattern.text(path)?)))
    }
}

/// Whether a variable part is what it looks like: a name, of which only slashes may be encoded. What servers might take for
/// another path is none.
fn is_plain(text: &str) -> bool {
    let text = text.replace("%2F", "/").replace("%2f", "/");
    let is_name = |part: &str| !matches!(part, "" | "." | "..") && !part.contains(['%', ';', '\\', '?', '#']);
    text.split('/').all(is_name)
}

/// What all spellings of a path have in common.
fn fold(path: &str) -> String {
    let mut text = path.to_owned();
    // Some decode twice.
    for _ in 0..3 {
        text = percent_encoding::percent_decode_str(&text).decode_utf8_lossy().into_owned();
    }
    let mut parts: Vec<String> = Vec::new();
    for part in text.split(['/', '\\']) {
        // What begins there is none of the path for some.
        let name = part.split([';', '?', '#', '\0']).next().unwrap_or_default();
        match name.trim_matches(|sign: char| !sign.is_ascii_graphic()) {
            "" | "." => {}
            ".." => drop(parts.pop()),
            name => parts.push(name.to_lowercase()),
        }
    }
    format!("/{}", parts.join("/"))
}

impl Pattern {
    fn same_as(&self, other: &Self) -> bool {
        self.before == other.before && self.after == other.after && self.method == other.method
    }

    /// The variable part of `path`, if it fits.
    fn text<'p>(&self, path: &'p str) -> Option<&'p str> {
        let text = path.strip_prefix(&*self.before)?.strip_suffix(&*self.after)?;
        is_plain(text).then_some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_spelling_of_a_path_is_known_for_what_it_means() {
        let check = |path: &str, expected: Option<&str>| {
            assert_eq!(routes().meant_by(path).as_deref(), expected, "{path}");
        };
        for path in
            ["/models/", "//models", "/./models", "/x/../models", "/%6dodels", "/%256Dodels", "/MODELS"]
        {
            check(path, Some("/models"));
        }
        for path in
            ["/models;a=b", "/models.json", "/models%00", "/models%23x", "/models%3Fx", "/models%E2%80%8B"]
        {
            check(path, Some("/models"));
        }
        check("//models/x/price", Some("/models/{model}/price"));
        check("/models/x/price.json", None); // the name of a model, for all that is known
        check("/models.bak/x", None);
        check("/talk/x/now.json", Some("/talk/{model}/now"));
        check("/models/ow%6e/price", Some("/models/own/price"));
        check("/models/a/../own/price", Some("/models/own/price"));
        check("/models/a;b/price", Some("/models/{model}/price"));
        check("/models", None);
        check("/models/x", None);
        check("/model", None);
        check("/", None);
    }

    fn routes() -> Routes {
        let mut routes = Routes::default();
        let paths =
            ["/models", "/models/{model}/price", "/models/{model}", "/models/own/price", "/talk/{model}/now"];
        for (index, path) in (0..).zip(paths) {
            assert!(routes.add(path, &Method::GET, OperationIx(index)));
        }
        assert!(!routes.add("/models/{name}", &Method::GET, OperationIx(9)));
        routes
    }

    #[test]
    fn the_most_exact_path_wins() {
        let check = |method: Method, path: &str, expected: Resolved| {
            assert_eq!(routes().resolve(&method, path), expected, "{method} {path}");
        };
        let operation = |index| Resolved::Operation(OperationIx(index));
        check(Method::GET, "/models", operation(0));
        check(Method::GET, "/models/a/b/price", operation(1));
        check(Method::GET, "/models/a/b", operation(2));
        check(Method::GET, "/models/own/price", operation(3));
        check(Method::POST, "/models/a/price", Resolved::WrongMethod);
        check(Method::POST, "/models", Resolved::WrongMethod);
        check(Method::GET, "/models/", Resolved::Unknown);
        check(Method::GET, "/other", Resolved::Unknown);
    }

    #[test]
    fn the_variable_part_is_decoded() {
        let routes = routes();
        let parameter =
            |path| routes.parameter(&Method::GET, path).map(|(name, text)| format!("{name}={text}"));
        assert_eq!(parameter("/models/a%2Fb-c/price").as_deref(), Some("model=a/b-c"));
        assert_eq!(parameter("/models/own/price"), None);
        assert_eq!(parameter("/models"), None);
    }
}
