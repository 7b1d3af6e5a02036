//! Which tests a command line asks for.

use anyhow::{Result, bail};

use super::test::{self, Test};

/// Those that are asked for, each once, in the order in which they are asked for; all if none are.
/// Of those only the ones that run on such nodes.
pub fn select(specs: &[String], machines: bool) -> Result<Vec<Test>> {
    let own: Vec<Test> = test::own()?.into_iter().filter(|test| test.runs_on(machines)).collect();
    if specs.is_empty() {
        return Ok(own);
    }
    let mut selected: Vec<Test> = Vec::new();
    for spec in specs {
        let found =
            if test::is_path(spec) { vec![test::read(spec)?] } else { matches(&own, spec)? };
        if let Some(test) = found.iter().find(|test| !test.runs_on(machines)) {
            bail!("run {}: it is not for nodes of this --backend", test.name);
        }
        for test in found {
            match selected.iter().find(|other| other.name == test.name) {
                None => selected.push(test),
                Some(other) if other.spec == test.spec => {}
                // The name is that of the folder with what came of it.
                Some(other) => {
                    bail!("run {}: {} has the same name {}", test.spec, other.spec, test.name)
                }
            }
        }
    }
    Ok(selected)
}

/// The one of this name, or else those whose names begin so or look so.
fn matches(own: &[Test], spec: &str) -> Result<Vec<Test>> {
    if let Some(test) = own.iter().find(|test| test.name == *spec) {
        return Ok(vec![test.clone()]);
    }
    let is_glob = spec.contains(['*', '?']);
    let fits = |name: &str| if is_glob { looks_like(name, spec) } else { name.starts_with(spec) };
    let found: Vec<Test> =
        own.iter().filter(|test| !spec.is_empty() && fits(&test.name)).cloned().collect();
    if found.is_empty() {
        bail!("find case {spec}: there is none (see ovl test --list)");
    }
    Ok(found)
}

/// Whether a name looks like a pattern, in which `*` stands for any text and `?` for a character.
fn looks_like(name: &str, pattern: &str) -> bool {
    // The starts of the pattern, by length, that all of the name so far looks like.
    let pattern: Vec<char> = pattern.chars().collect();
    let mut reached = vec![false; pattern.len() + 1];
    reached[0] = true;
    skip_stars(&mut reached, &pattern);
    for c in name.chars() {
        let mut next = vec![false; pattern.len() + 1];
        for (at, wanted) in pattern.iter().enumerate().filter(|(at, _)| reached[*at]) {
            match wanted {
                '*' => next[at] = true,
                '?' => next[at + 1] = true,
                _ => next[at + 1] |= *wanted == c,
            }
        }
        skip_stars(&mut next, &pattern);
        reached = next;
    }
    reached[pattern.len()]
}

/// A star may stand for nothing.
fn skip_stars(reached: &mut [bool], pattern: &[char]) {
    for (at, _) in pattern.iter().enumerate().filter(|(_, c)| **c == '*') {
        reached[at + 1] |= reached[at];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(specs: &[&str]) -> Result<Vec<String>> {
        let specs: Vec<String> = specs.iter().map(|spec| (*spec).to_owned()).collect();
        Ok(select(&specs, false)?.into_iter().map(|test| test.name).collect())
    }

    #[test]
    fn a_name_a_prefix_or_a_pattern_selects() {
        assert_eq!(names(&["tcp"]).unwrap(), ["tcp"]);
        assert_eq!(names(&["queue-full"]).unwrap(), ["queue-full-closed", "queue-full-open"]);
        assert_eq!(names(&["*-full-open"]).unwrap(), ["queue-full-open", "socket-full-open"]);
        assert_eq!(names(&["tcp", "t?p", "ping"]).unwrap(), ["tcp", "ping"]);
        let of_machines_only =
            test::own().unwrap().iter().filter(|test| !test.runs_on(false)).count();
        assert_eq!(names(&[]).unwrap().len() + of_machines_only, test::own().unwrap().len());
    }

    #[test]
    fn what_is_unknown_is_named() {
        for spec in ["nothing", "nothing*", ""] {
            let error = names(&[spec]).unwrap_err().to_string();
            assert_eq!(error, format!("find case {spec}: there is none (see ovl test --list)"));
        }
        let error = format!("{:#}", names(&["./no.case"]).unwrap_err());
        assert!(error.starts_with("read scenario ./no.case: "), "{error}");
    }

    #[test]
    fn patterns() {
        for (name, pattern, expected) in [
            ("abc", "abc", true),
            ("abc", "a*", true),
            ("abc", "*c", true),
            ("abc", "a*b*c*", true),
            ("abc", "a?", false),
            ("abc", "***", true),
            ("", "*", true),
            ("aab", "*ab", true),
        ] {
            assert_eq!(looks_like(name, pattern), expected, "{name} {pattern}");
        }
    }
}
