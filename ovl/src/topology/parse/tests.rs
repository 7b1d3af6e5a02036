use proptest::prelude::*;

use super::*;
use crate::topology::plan::{Size, Variables};

const HEAD: &str = "about a test\nsize nodes 4 routers 2 testers 1\n";

/// What is wrong with a line after the two of [`HEAD`].
fn refused(line: &str) -> String {
    let error = parse("x", "x.topo", &format!("{HEAD}{line}\n")).unwrap_err().to_string();
    let cause = error.strip_prefix("x.topo:3: ");
    cause.unwrap_or_else(|| panic!("odd message: {error}")).to_owned()
}

fn statement(line: &str) -> Statement {
    parse("x", "x.topo", &format!("{HEAD}{line}")).unwrap().lines.remove(0).what
}

#[test]
fn a_file_is_lines() {
    let text = "# a comment\nabout  some text # more\n\nsize nodes 1 routers 2 of 2-3 testers 4 fixed\n\
                net 1 cluster\nvm nets 0 1\n201,203-205 route default via 1,2 on 1 if SOME=thing\n";
    let topology = parse("name", "x.topo", text).unwrap();
    assert_eq!((topology.name.as_str(), topology.about.as_str()), ("name", "some text"));
    let size = [Role::Server, Role::Router, Role::Tester].map(|role| topology.size.of(role));
    assert_eq!(size, [Count::new(1, 0, 200), Count::new(2, 2, 3), Count::new(4, 4, 4)]);
    assert_eq!(topology.net_names[&NetId(1)], "cluster");
    let [nets, route] = &topology.lines[..] else { panic!("not two lines") };
    assert_eq!((nets.number, &nets.who), (6, &Who::Role(Role::Server)));
    assert_eq!((route.number, &route.who), (7, &Who::Numbers(vec![201..=201, 203..=205])));
    let condition = Condition { variable: "SOME".to_owned(), value: Some("thing".to_owned()) };
    assert_eq!(route.condition, Some(condition));
}

#[test]
fn statements_say_what_they_look_like() {
    let net = NetId;
    assert_eq!(statement("all nets 0 1 2"), Statement::Nets(vec![net(0), net(1), net(2)]));
    assert_eq!(
        statement("vm plain 3 4"),
        Statement::Addressing { nets: vec![net(3), net(4)], how: Addressing::None }
    );
    assert_eq!(
        statement("221 address 2 as 1"),
        Statement::Addressing { nets: vec![net(2)], how: Addressing::As(net(1)) }
    );
    assert_eq!(
        statement("vm address 3 from LANS"),
        Statement::Addressing { nets: vec![net(3)], how: Addressing::Template("LANS".to_owned()) }
    );
    assert_eq!(
        statement("router bridge br1 of 1 2 address 1"),
        Statement::Bridge { name: "br1".to_owned(), of: vec![net(1), net(2)], address: net(1) }
    );
    assert_eq!(statement("all mtu 3 1400"), Statement::Mtu { net: net(3), mtu: 1400 });
    assert_eq!(statement("222 forward"), Statement::Forward);
    let via = |gateway, on| Hop { gateway: Some(gateway), net: net(on) };
    let node = |number| NodeId::new(number).unwrap();
    assert_eq!(
        statement("vm route net 2 and 10.0.0.0/8 via 203,204 on 3 via router on 4"),
        Statement::Route(Route {
            to: vec![Destination::Net(net(2)), Destination::Prefix("10.0.0.0/8".parse().unwrap())],
            hops: vec![
                via(Gateway::Nodes(vec![node(203), node(204)]), 3),
                via(Gateway::Role(Role::Router), 4)
            ],
            table: None,
        })
    );
    assert_eq!(
        statement("vm route default on 1 table 9 for oif and from"),
        Statement::Route(Route {
            to: vec![Destination::Default],
            hops: vec![Hop { gateway: None, net: net(1) }],
            table: Some(Table { number: 9, oif: true, from: true }),
        })
    );
    assert_eq!(
        statement("201 route net 4 via each vm on 1"),
        Statement::Route(Route {
            to: vec![Destination::Net(net(4))],
            hops: vec![via(Gateway::Each(Role::Server), 1)],
            table: None,
        })
    );
}

#[test]
fn what_is_wrong_with_a_line_is_said() {
    let cases = [
        // The beginning.
        ("about again", "a second `about`"),
        ("size nodes 1 routers 1 testers 1", "a second `size`"),
        (
            "vms nets 0",
            "unknown word `vms`: a line begins with about, size, net, all, vm, router, tester \
             or numbers of nodes",
        ),
        ("0 nets 0", "`0` is not the number of a node, from 1 to 240"),
        ("241 nets 0", "`241` is not the number of a node, from 1 to 240"),
        ("1, nets 0", "`` is not the number of a node, from 1 to 240"),
        ("9-3 nets 0", "`9-3`: the first number is the larger one"),
        ("vm", "a statement is missing at the end of the line"),
        (
            "vm net 1",
            "unknown word `net`: not one of nets, plain, address, bridge, mtu, forward, route",
        ),
        // Names of nets.
        ("net 1", "a name is missing at the end of the line"),
        (
            "net 1 Cluster",
            "`Cluster`: a name is of up to 15 letters a-z, digits and `-`, a letter first",
        ),
        ("net 256 far", "`256` instead of the number of a net: not a number from 0 to 255"),
        ("net 1 a b", "unknown word `b` after the statement"),
        // Devices.
        ("vm nets 1 2", "the first of `nets` is 0: eth0 is for maintenance"),
        ("vm nets 0 1 1", "a second device on net 1"),
        ("vm nets 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16", "more than 16 devices"),
        ("vm nets 0 1 x", "unknown word `x` after the statement"),
        ("vm plain 0", "net 0 is for maintenance: it stays as it is"),
        ("vm plain 3 3", "the address on net 3 is named twice"),
        ("vm address 3", "`as NET` or `from VARIABLE` is missing at the end of the line"),
        ("vm address 3 like 1", "`like` instead of `as NET` or `from VARIABLE`"),
        ("vm address 3 from 1A", "`1A` is not the name of a variable"),
        ("vm bridge eth7 of 1 2 address 1", "`eth7` is the name of a device"),
        ("vm bridge br1 of 1 address 1", "a bridge is of two nets at least"),
        ("vm bridge br1 of 1 1 address 1", "net 1 is in the bridge twice"),
        ("vm bridge br1 of 1 2", "`address` is missing at the end of the line"),
        ("vm mtu 1 1279", "MTU `1279`: not a number from 1280 to 65535"),
        ("vm mtu 1 65536", "MTU `65536`: not a number from 1280 to 65535"),
        ("vm forward yes", "unknown word `yes` after the statement"),
        // Routes.
        (
            "vm route there via 1 on 1",
            "unknown destination `there`: not default, net N, vips, sources or a prefix",
        ),
        ("vm route 10.0.0.1/8 on 1", "`10.0.0.1/8` has bits set beyond its length"),
        ("vm route default and default on 1", "the route to default is named twice"),
        ("vm route default via on 1", "`on` is not the number of a node, from 1 to 240"),
        ("vm route default via 201,201 on 1", "gateway 201 is named twice"),
        ("vm route default via 201", "`on` is missing at the end of the line"),
        ("vm route default via each 201 on 1", "`201` is not a role: vm, router or tester"),
        ("vm route vips via each vm on 1", "`via each vm` leads to nets only"),
        (
            "vm route default via 201 on 1 on 2",
            "several ways are possible with `via NODES on NET` only",
        ),
        (
            "vm route default via 201 on 1 via 202 on 2 table 3 for oif",
            "all ways in a table are on one net",
        ),
        (
            "vm route default on 1 table 254 for oif",
            "table `254`: not a number from 1 to 32767 but 253-255",
        ),
        ("vm route default on 1 table 9 from", "`from` instead of `for`"),
        ("vm route default on 1 table 9 for iif", "`iif` instead of `oif` or `from`"),
        ("vm forward if", "a variable is missing at the end of the line"),
        ("vm forward if =yes", "`` is not the name of a variable"),
    ];
    for (line, cause) in cases {
        assert_eq!(refused(line), cause, "{line}");
    }
    let again = "vm route default via 201 on 1\nvm route sources and default on 1";
    let error = parse("x", "x.topo", &format!("{HEAD}{again}")).unwrap_err().to_string();
    let cause = "line 3 has said the route to default for these nodes already";
    assert_eq!(error, format!("x.topo:4: {cause}"));
}

#[test]
fn what_is_wrong_with_a_size_is_said() {
    let refused = |size: &str| parse("x", "x.topo", size).unwrap_err().to_string();
    let cases = [
        ("size nodes 4", "`routers` is missing at the end of the line"),
        ("size nodes 201 routers", "nodes `201`: not a number from 0 to 200"),
        ("size nodes 4 routers 21", "routers `21`: not a number from 0 to 20"),
        ("size nodes 4 routers 2 testers -1", "testers `-1`: not a number from 0 to 20"),
        ("size nodes 4 routers 2 of 3", "routers 2 of `3`: not a range such as 1-20"),
        ("size nodes 4 routers 2 of 3-4", "routers 2 is not within 3-4"),
        ("size nodes 4 routers 2 testers 1 fixed 2", "unknown word `2` after the statement"),
        ("about", "`about` without a text"),
        ("about a\u{7}b", "`about` with control characters"),
    ];
    for (size, cause) in cases {
        assert_eq!(refused(size), format!("x.topo:1: {cause}"));
    }
    assert_eq!(refused("about x"), "x.topo: no `size` line");
    assert_eq!(refused("size nodes 1 routers 1 testers 1"), "x.topo: no `about` line");
    assert_eq!(refused("net 1 a\nnet 1 b"), "x.topo:2: net 1 has a name already");
    assert_eq!(refused("net 1 a\nnet 2 a"), "x.topo:2: another net is called `a`");
}

#[test]
fn a_file_is_not_too_long() {
    let many: String = (0..=LINE_LIMIT)
        .fold(HEAD.to_owned(), |text, index| text + &format!("vm forward if V{index}\n"));
    let error = parse("x", "x.topo", &many).unwrap_err().to_string();
    assert_eq!(error, "x.topo:1003: more than 1000 statements");
    let error = parse("x", "x.topo", &" ".repeat(FILE_LIMIT + 1)).unwrap_err().to_string();
    assert_eq!(error, "x.topo: more than 65536 bytes");
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "\\PC*(\n\\PC*){0,4}") {
        let _ = Topology::parse("x", "x.topo", &text);
    }

    #[test]
    fn any_words_are_read_or_refused(lines in proptest::collection::vec(any_line(), 0..12)) {
        let text = format!("{HEAD}all nets 0 1 2 3\n{}", lines.join("\n"));
        if let Ok(topology) = Topology::parse("x", "x.topo", &text) {
            topology.plan(&Size::default(), &[], &Variables::new()).unwrap();
            // Lines with one condition may not fit those with another.
            let set = Variables::from([("V".to_owned(), "10.0.0.0/8/16".to_owned())]);
            let _ = topology.plan(&Size::default(), &[], &set);
        }
    }
}

/// Words of the language, most often in a sensible order.
fn any_line() -> impl Strategy<Value = String> {
    let who = "(all|vm|router|tester|201|1-3|202,221)";
    let net = "[0-4]";
    let gateway = "(201|202|221|1,2|vm|router|tester|each vm)";
    let to = "(default|net [0-3]|vips|sources|10.1.0.0/16|2000::/16)";
    prop_oneof![
        pattern(&format!("{who} nets 0( {net}){{0,3}}")),
        pattern(&format!("{who} (plain {net}|address {net} (as {net}|from V))")),
        pattern(&format!("{who} (bridge b{net} of {net} {net} address {net}|mtu {net} 1[2-5]00)")),
        pattern(&format!(
            "{who} (forward|route {to}( and {to})?( via {gateway} on {net}){{1,2}}\
             ( table 9 for (oif|from))?)( if V(=a)?)?"
        )),
        pattern("(about|size|net|table|fixed|[a-z0-9,=/ -]{1,12}){1,6}"),
    ]
}

fn pattern(text: &str) -> BoxedStrategy<String> {
    proptest::string::string_regex(text).unwrap().boxed()
}
