use proptest::prelude::*;

use super::*;

const HEADER: &str = "about a text\ntopology xnet\nstep first\n";

fn id(number: u8) -> NodeId {
    NodeId::new(number).unwrap()
}

/// The error of a file that ends with `lines`, after a header.
fn error(lines: &str) -> String {
    format!("{:#}", parse("x.case", &format!("{HEADER}{lines}")).unwrap_err())
}

fn header_error(text: &str) -> String {
    format!("{:#}", parse("x.case", text).unwrap_err())
}

fn verbs(lines: &str) -> Vec<Verb> {
    let scenario = parse("x.case", &format!("{HEADER}{lines}")).unwrap();
    scenario.steps.into_iter().flat_map(|step| step.actions).map(|a| a.verb).collect()
}

#[test]
fn reads_a_header() {
    let text = "\
# a comment
about    every target answers   # and another
topology evil-tester nodes=4 routers=1
overlays lb mserver
set      LB_START=yes
set      OPTIONS=--queue 0:3 a#b
limit    2m
needs    nfqueue
backend  vm
alone

step within 500ms first # comment
vm: true
";
    let scenario = parse("a.case", text).unwrap();
    assert_eq!(scenario.about, "every target answers");
    assert_eq!(scenario.layout.topology, "evil-tester");
    let layout = &scenario.layout;
    assert_eq!(layout.size, Size { nodes: Some(4), routers: Some(1), testers: None });
    assert_eq!(layout.overlays, ["lb", "mserver"]);
    let variables =
        [("LB_START", "yes"), ("OPTIONS", "--queue 0:3 a#b")].map(|(a, b)| (a.into(), b.into()));
    assert_eq!(layout.variables, variables.into());
    assert_eq!(scenario.limit, Duration::from_secs(120));
    assert!(scenario.alone);
    assert_eq!(scenario.needs, [Feature::Nfqueue]);
    assert_eq!(scenario.on, On::Machines);
    let step = &scenario.steps[0];
    assert_eq!((step.title.as_str(), step.limit), ("first", Duration::from_millis(500)));
    assert_eq!(step.actions[0].line, 13);
}

#[test]
fn reads_actions() {
    let run =
        |nodes, expected, command: &str| Verb::Run { nodes, expected, command: command.to_owned() };
    let one = |number| Nodes::Numbered(vec![(id(number), id(number))]);
    let named = |name: &str| name.to_owned();
    assert_eq!(
        verbs(
            "vm: shm-tool show # of all\n\
                 within 10s 221: ping -c1 10.0.0.0\n\
                 fails 1-3,201: false\n\
                 same router: date\n\
                 start 201 lb-2: lb --queue 2\n\
                 await 221 load # it ends\n\
                 stop 201 lb-2\n\
                 impair 221 eth1 loss 1% delay 5ms # for a while\n"
        ),
        [
            run(Nodes::OfRole(Role::Server), Expected::Success, "shm-tool show # of all"),
            run(one(221), Expected::SuccessWithin(Duration::from_secs(10)), "ping -c1 10.0.0.0"),
            run(
                Nodes::Numbered(vec![(id(1), id(3)), (id(201), id(201))]),
                Expected::Failure,
                "false"
            ),
            run(Nodes::OfRole(Role::Router), Expected::Same, "date"),
            Verb::Start { nodes: one(201), program: named("lb-2"), command: named("lb --queue 2") },
            Verb::Await { nodes: one(221), program: named("load") },
            Verb::Stop { nodes: one(201), program: named("lb-2") },
            Verb::Impair {
                nodes: one(221),
                device: named("eth1"),
                words: ["loss", "1%", "delay", "5ms"].map(named).into(),
            },
        ]
    );
}

#[test]
fn an_indented_line_goes_on_with_the_command() {
    let verbs = verbs("221: for a in 1 2; do\n    echo $a\n# not of the shell\n  done\n");
    let [Verb::Run { command, .. }] = &verbs[..] else { panic!("{verbs:?}") };
    assert_eq!(command, "for a in 1 2; do\necho $a\ndone");
    let verbs = self::verbs("start 201 lb: lb\n  --queue 2\n");
    let [Verb::Start { command, .. }] = &verbs[..] else { panic!("{verbs:?}") };
    assert_eq!(command, "lb --queue 2");
}

#[test]
fn every_mistake_has_its_line() {
    for (lines, expected) in [
        ("221: true\nech 221: true", "x.case:5: unknown word \"ech\" (about, "),
        ("221:", "x.case:4: there is no command"),
        ("0: true", "x.case:4: \"0\" are no nodes (all, "),
        ("3-1: true", "x.case:4: \"3-1\" are no nodes"),
        ("vms: true", "x.case:4: \"vms\" are no nodes"),
        ("within 221: true", "x.case:4: \"221:\" is no duration"),
        ("within 9999999h 221: true", "x.case:4: \"9999999h\" is no duration"),
        ("within 0s 221: true", "x.case:4: \"0s\" is no duration"),
        ("fails true", "x.case:4: \"true\" is not NODES:"),
        ("start 201 lb", "x.case:4: start: not `start NODES NAME: COMMAND`"),
        ("start 201 ../lb: lb", "x.case:4: \"../lb\" is no name"),
        ("stop 201", "x.case:4: \"\" is no name"),
        ("impair 201 eth1", "x.case:4: impair: not `impair NODES DEVICE WORDS`"),
        ("stop 201 lb\n  more", "x.case:5: an indented line"),
        ("221: true\nset A=b", "x.case:5: set belongs before the first step"),
        ("step", "x.case:4: step: it has no title"),
        ("step next\n221: true", "x.case:3: step \"first\" has no action"),
        ("", "x.case:3: step \"first\" has no action"),
    ] {
        let error = error(lines);
        assert!(error.starts_with(expected), "{lines:?}: {error}");
    }
}

#[test]
fn every_mistake_of_a_header_has_its_line() {
    for (text, expected) in [
        ("", "x.case:1: the file ends without a step"),
        ("about x\nabout y", "x.case:2: about is there twice"),
        ("about # nothing", "x.case:1: about: says nothing"),
        ("alone now", "x.case:1: alone: takes no word"),
        ("topology xnet node=4", "x.case:1: topology: unknown size \"node=4\""),
        ("topology xnet nodes=300", "x.case:1: topology: \"nodes=300\" is no size"),
        ("topology xnet nodes=1 nodes=2", "x.case:1: nodes is there twice"),
        ("set 1A=b", "x.case:1: set: \"1A=b\" is not NAME=VALUE"),
        ("set A=1\nset A=2", "x.case:2: set: A is set twice"),
        ("backend cloud", "x.case:1: backend: unknown \"cloud\" (ns, vm)"),
        ("needs fire", "x.case:1: needs: unknown feature \"fire\""),
        ("about x\nstep y", "x.case:2: a step, but no line `topology NAME`"),
        ("topology x\nstep y", "x.case:2: a step, but no line `about TEXT`"),
        ("about x\n221: true", "x.case:2: an action, but no line `step TITLE`"),
    ] {
        let error = header_error(text);
        assert!(error.starts_with(expected), "{text:?}: {error}");
    }
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in any::<String>()) {
        let _ = parse("x.case", &text);
    }

    #[test]
    fn lines_of_known_words_are_read_or_refused(
        words in prop::collection::vec(prop::sample::select(&[
            "about", "topology", "overlays", "set", "limit", "needs", "backend", "alone", "step", "within",
            "fails", "same", "start", "await", "stop", "221:", "vm:", "1-3", "10s",
            "x", "#", "\n", "\n ", "A=b", "nodes=3", "é",
        ][..]), 0..60),
    ) {
        let text = words.join(" ").replace("\n ", "\n");
        if let Err(error) = parse("x.case", &text) {
            let error = format!("{error:#}");
            prop_assert!(error.starts_with("x.case:"), "{}", error);
        }
    }
}
