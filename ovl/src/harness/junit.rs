//! The report for machines: JUnit's XML.

use std::fmt::Write;
use std::time::Duration;

use super::report::Finished;
use super::verdict::{Tally, Verdict};

pub fn document(finished: &[Finished], total: Duration) -> String {
    let mut tally = Tally::default();
    finished.iter().for_each(|test| tally.add(&test.verdict));
    let counts = format!(
        "tests=\"{}\" failures=\"{}\" skipped=\"{}\" time=\"{:.3}\"",
        finished.len(),
        tally.failed,
        tally.skipped,
        total.as_secs_f64()
    );
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let _ = writeln!(xml, "<testsuites {counts}>\n<testsuite name=\"ovl\" errors=\"0\" {counts}>");
    for test in finished {
        let (name, seconds) = (escaped(&test.name), test.duration.as_secs_f64());
        let _ = write!(xml, "<testcase classname=\"ovl\" name=\"{name}\" time=\"{seconds:.3}\"");
        let _ = match &test.verdict {
            Verdict::Passed => writeln!(xml, "/>"),
            Verdict::Skipped(text) => {
                writeln!(xml, "><skipped message=\"{}\"/></testcase>", escaped(text))
            }
            Verdict::Failed(text) => {
                let message = escaped(text.lines().next().unwrap_or_default());
                let body = escaped(&test.details());
                writeln!(xml, "><failure message=\"{message}\">{body}</failure></testcase>")
            }
        };
    }
    xml.push_str("</testsuite>\n</testsuites>\n");
    xml
}

fn escaped(text: &str) -> String {
    text.chars().fold(String::new(), |mut escaped, c| {
        match c {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '"' => escaped.push_str("&quot;"),
            '\n' | '\t' => escaped.push(c),
            // XML has no way to write these.
            _ if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => escaped.push('\u{fffd}'),
            _ => escaped.push(c),
        }
        escaped
    })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn every_verdict_is_in_the_document() {
        let test = |name: &str, verdict| Finished {
            name: name.to_owned(),
            verdict,
            duration: Duration::from_millis(1500),
            folder: PathBuf::from("/x"),
            log_tail: String::new(),
            kept: None,
        };
        let finished = [
            test("good", Verdict::Passed),
            test("bad", Verdict::Failed("expected: a < b\nseen:     \u{1b}[1m".to_owned())),
            test("odd", Verdict::Skipped("no \"x\"".to_owned())),
        ];
        let xml = document(&finished, Duration::from_secs(3));
        assert!(xml.contains("tests=\"3\" failures=\"1\" skipped=\"1\" time=\"3.000\""), "{xml}");
        assert!(xml.contains("name=\"good\" time=\"1.500\"/>"), "{xml}");
        assert!(xml.contains("<failure message=\"expected: a &lt; b\">"), "{xml}");
        assert!(xml.contains("\u{fffd}[1m"), "{xml}");
        assert!(xml.contains("<skipped message=\"no &quot;x&quot;\"/>"), "{xml}");
    }
}
