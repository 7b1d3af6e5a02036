use super::super::Folder;
use super::*;
use lb_core::table::{BodyWords, LAYOUT_VERSION};
use lb_core::target::{Mark, Weight};
use std::ffi::CString;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::Barrier;
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

/// No wait in these tests is longer; none of them is used up by a success.
const DEADLINE: Duration = Duration::from_secs(20);

/// A folder of shared memory that goes with the test.
struct Room {
    dir: tempfile::TempDir,
    folder: Folder,
    name: Name,
}

impl Room {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Room { folder: Folder::new(dir.path()), dir, name: name("t") }
    }

    /// A room with a table that holds these marks, each with weight 2.
    fn with(marks: &[u32]) -> Self {
        let room = Room::new();
        room.init(small(), Existing::Refuse).unwrap();
        room.activate(marks);
        room
    }

    fn init(&self, config: Config, existing: Existing) -> Result<Snapshot, ShmError> {
        init(&self.folder, &self.name, config, existing)
    }

    fn lock(&self) -> TableWriter {
        TableWriter::lock(&self.folder, &self.name).unwrap()
    }

    fn open(&self) -> MappedTable {
        MappedTable::open(&self.folder, &self.name).unwrap()
    }

    fn activate(&self, marks: &[u32]) -> Snapshot {
        let writer = self.lock();
        let mut targets = writer.snapshot().unwrap().targets;
        for &number in marks {
            let mark = Mark::new(number).unwrap();
            targets.activate(mark, Some(Weight(2)), None).unwrap();
        }
        writer.publish(&targets).unwrap()
    }

    fn path(&self) -> PathBuf {
        self.folder.table(&self.name)
    }

    fn bytes(&self) -> Vec<u8> {
        fs::read(self.path()).unwrap()
    }

    /// Names of all files, hidden ones too.
    fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.dir.path()).unwrap();
        let mut files: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        files.sort();
        files
    }

    fn write(&self, file: &str, content: impl AsRef<[u8]>) {
        fs::write(self.dir.path().join(file), content).unwrap();
    }

    fn fifo(&self, file: &str) {
        let path = self.dir.path().join(file);
        let path = CString::new(path.as_os_str().as_bytes()).unwrap();
        // SAFETY: `path` is a C string that lives through the call.
        assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o644) }, 0);
    }
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn small() -> Config {
    Config { slots: 101, targets: 4, ..Config::default() }
}

fn marks(snapshot: &Snapshot) -> Vec<(u32, u32)> {
    let targets = snapshot.targets.iter();
    targets.map(|(i, target)| (i, target.mark.get())).collect()
}

/// The result of something that must not hang.
fn in_time<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || sender.send(work()));
    receiver.recv_timeout(DEADLINE).expect("it hangs")
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        thread::yield_now();
    }
}

// ---- Reading and publishing

#[test]
fn what_a_writer_publishes_a_reader_sees() {
    let room = Room::new();
    let made = room.init(small(), Existing::Refuse).unwrap();
    assert_eq!((made.config, marks(&made)), (small(), vec![]));
    let reader = room.open();
    assert_eq!(reader.snapshot().unwrap(), made);

    let published = room.activate(&[7, 5]);
    assert_eq!(marks(&published), [(0, 7), (1, 5)]);
    assert_eq!(published.generation, made.generation.next());
    assert_eq!(reader.snapshot().unwrap(), published);
    assert!(!reader.is_replaced(&room.folder, &room.name));
    assert_eq!(room.files(), ["t"]);
}

#[test]
fn a_missing_table_is_named_with_what_to_do() {
    let room = Room::new();
    let missing = "there is no such table; make it with `shm-tool init --shm t`";
    let open = MappedTable::open(&room.folder, &room.name).unwrap_err();
    assert_eq!(open.to_string(), format!("open table t: {missing}"));
    let lock = TableWriter::lock(&room.folder, &room.name).unwrap_err();
    assert_eq!(lock.to_string(), format!("change table t: {missing}"));
    let delete = delete(&room.folder, &room.name).unwrap_err();
    assert_eq!(delete.to_string(), format!("delete table t: {missing}"));
    assert_eq!(room.files(), [""; 0]);
}

#[test]
fn a_reader_goes_on_with_a_deleted_table_until_there_is_another() {
    let room = Room::with(&[7]);
    let reader = room.open();
    let before = reader.snapshot().unwrap();
    delete(&room.folder, &room.name).unwrap();
    assert_eq!(room.files(), [""; 0]);
    assert_eq!(reader.snapshot().unwrap(), before);
    assert!(!reader.is_replaced(&room.folder, &room.name));

    room.init(small(), Existing::Refuse).unwrap();
    assert!(reader.is_replaced(&room.folder, &room.name));
    assert_eq!(reader.snapshot().unwrap(), before);
    assert!(!room.open().is_replaced(&room.folder, &room.name));
}

#[test]
fn a_reader_of_a_replaced_table_never_sees_the_new_one() {
    let room = Room::with(&[7]);
    let reader = room.open();
    let before = reader.snapshot().unwrap();
    room.init(small(), Existing::Drop).unwrap();
    room.activate(&[8, 9]);
    assert_eq!(reader.snapshot().unwrap(), before);
    assert!(reader.is_replaced(&room.folder, &room.name));
}

// ---- init

#[test]
fn init_over_targets_needs_a_word_and_generations_go_on() {
    let room = Room::with(&[7, 5]);
    let (before, bytes) = (room.open().snapshot().unwrap(), room.bytes());
    let refused = room.init(small(), Existing::Refuse).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "init table t: the table has targets (2); --keep carries them over, --force drops them"
    );
    assert_eq!(room.bytes(), bytes);

    let larger = Config { slots: 997, targets: 9, ..small() };
    let kept = room.init(larger, Existing::Keep).unwrap();
    assert_eq!(kept.config, larger);
    assert_eq!(kept.targets.iter().collect::<Vec<_>>(), before.targets.iter().collect::<Vec<_>>());
    assert!(kept.generation > before.generation);

    let dropped = room.init(small(), Existing::Drop).unwrap();
    assert_eq!(marks(&dropped), []);
    assert!(dropped.generation > kept.generation);
    // A table without targets is nobody's loss.
    let again = room.init(small(), Existing::Refuse).unwrap();
    assert!(again.generation > dropped.generation);
    assert_eq!(room.files(), ["t"]);
}

#[test]
fn a_target_without_room_in_the_new_table_is_named() {
    let room = Room::with(&[7, 5, 6]);
    let bytes = room.bytes();
    let smaller = Config { targets: 2, ..small() };
    let error = room.init(smaller, Existing::Keep).unwrap_err();
    assert_eq!(
        error.to_string(),
        "init table t: mark 6 has index 2, beyond the new table's indexes 0 to 1"
    );
    assert_eq!((room.bytes(), room.files()), (bytes, vec!["t".into()]));
}

#[test]
fn what_is_not_said_can_follow_the_table_that_is_kept() {
    let room = Room::new();
    let own = Config { own_mark: 9, ..small() };
    let config_of = |old: Option<&Config>| Config { slots: 103, ..old.copied().unwrap_or(own) };
    let made = init_from(&room.folder, &room.name, Existing::Keep, config_of).unwrap();
    assert_eq!((made.config.own_mark, made.config.targets), (9, 4));
    let other = Config { targets: 7, own_mark: 3, ..own };
    room.init(other, Existing::Keep).unwrap();
    let kept = init_from(&room.folder, &room.name, Existing::Keep, config_of).unwrap();
    assert_eq!((kept.config.own_mark, kept.config.targets), (3, 7));
    let dropped = init_from(&room.folder, &room.name, Existing::Drop, config_of).unwrap();
    assert_eq!((dropped.config.own_mark, dropped.config.targets), (9, 4));
}

#[test]
fn impossible_dimensions_leave_everything_as_it_was() {
    let room = Room::with(&[7]);
    let bytes = room.bytes();
    let composite = Config { slots: 100, ..small() };
    for existing in [Existing::Refuse, Existing::Keep, Existing::Drop] {
        let error = room.init(composite, existing).unwrap_err();
        assert_eq!(error.to_string(), "init table t: M = 100 is not prime");
    }
    assert_eq!((room.bytes(), room.files()), (bytes, vec!["t".into()]));
}

#[test]
fn a_damaged_table_is_only_replaced_by_force() {
    let room = Room::with(&[7]);
    let mut bytes = room.bytes();
    bytes[3 * 8] ^= 1;
    room.write("t", &bytes);
    let damaged = "damaged table: the header does not match its check word";
    for existing in [Existing::Refuse, Existing::Keep] {
        let error = room.init(small(), existing).unwrap_err().to_string();
        assert_eq!(error, format!("init table t: {damaged}"));
    }
    let error = TableWriter::lock(&room.folder, &room.name).unwrap_err();
    assert_eq!(error.to_string(), format!("change table t: {damaged}"));
    assert_eq!(room.bytes(), bytes);
    room.init(small(), Existing::Drop).unwrap();
    assert_eq!(marks(&room.open().snapshot().unwrap()), []);
}

#[test]
fn a_file_that_is_no_table_is_neither_replaced_nor_removed() {
    let room = Room::new();
    for content in ["", "somebody else's", &"long ".repeat(2000)] {
        room.write("t", content);
        for existing in [Existing::Refuse, Existing::Keep, Existing::Drop] {
            let error = room.init(small(), existing).unwrap_err();
            assert_eq!(error.to_string(), "init table t: not a Markway table");
        }
        let error = delete(&room.folder, &room.name).unwrap_err();
        assert_eq!(error.to_string(), "delete table t: not a Markway table");
        assert_eq!(room.bytes(), content.as_bytes());
    }
    assert_eq!(room.files(), ["t"]);
}

#[test]
fn of_many_inits_each_makes_a_whole_table() {
    const THREADS: u32 = 8;
    for _ in 0..100 {
        let room = Room::new();
        let start = Barrier::new(THREADS as usize);
        thread::scope(|scope| {
            for number in 1..=THREADS {
                let (room, start) = (&room, &start);
                scope.spawn(move || {
                    start.wait();
                    let config = Config { own_mark: number, ..small() };
                    let made = room.init(config, Existing::Drop).unwrap();
                    assert_eq!(made.config, config);
                });
            }
        });
        // One made the first table, each of the others replaced one.
        let last = room.open().snapshot().unwrap();
        assert_eq!(last.generation, Generation(u64::from(THREADS)));
        assert_eq!(room.files(), ["t"]);
    }
}

#[test]
fn leftovers_of_killed_processes_are_removed_and_nothing_else() {
    let room = Room::new();
    let others = [".t.new", ".t.1x.new", ".t.1", ".u.12.new", "t.12.new"];
    for file in [".t.12.new", ".t.4000000.new"].iter().chain(&others) {
        room.write(file, "half a table");
    }
    let staging = Staged::new(&room.path(), 10).unwrap();
    let expected = |more: &[&str]| {
        let mut files: Vec<String> = others.iter().chain(more).map(|&f| f.into()).collect();
        files.sort();
        files
    };
    room.init(small(), Existing::Refuse).unwrap();
    let live = format!(".t.{}.new", std::process::id());
    assert_eq!(room.files(), expected(&["t", &live]));
    drop(staging);
    assert_eq!(room.files(), expected(&["t"]));
}

/// A process that died between linking a new table to its place and removing the first name left a
/// name that `init` could not remove: it has the lock of that very file.
#[test]
fn a_new_file_takes_its_place_in_one_step() {
    let room = Room::new();
    let staged = Staged::new(&room.path(), 10).unwrap();
    let second = Staged::new(&room.path(), 10).unwrap();
    assert!(staged.put_new().unwrap());
    let still_staged = format!(".t.{}.new", std::process::id() + 1);
    assert_eq!(room.files(), [&still_staged, "t"]);
    assert!(!second.put_new().unwrap());
    assert_eq!(room.files(), [&still_staged, "t"]);
    drop((staged, second));
    assert_eq!(room.files(), ["t"]);
}

// ---- Writers among themselves

#[test]
fn a_writer_that_waited_takes_the_table_that_is_there_by_then() {
    let room = Room::with(&[7]);
    let (old, holder) = (room.open(), room.lock());
    let inode = fs::metadata(room.path()).unwrap().ino();
    let opened = || {
        let fds = fs::read_dir("/proc/self/fd").unwrap().flatten();
        fds.filter(|fd| fs::metadata(fd.path()).is_ok_and(|file| file.ino() == inode)).count()
    };
    let before = opened();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| room.activate(&[8]));
        wait_until("a second writer opens the table", || opened() > before);
        // What `init` does under the lock.
        let larger = Config { slots: 997, ..small() };
        let staged = stage(&room.folder, &room.name, &larger, Generation(40), None).unwrap();
        staged.replace().unwrap();
        drop(staged);
        assert!(!waiting.is_finished());
        drop(holder);
        let published = waiting.join().unwrap();
        assert_eq!(published.config, larger);
        assert_eq!(marks(&published), [(0, 8)]);
    });
    assert_eq!(marks(&old.snapshot().unwrap()), [(0, 7)]);
    assert_eq!(marks(&room.open().snapshot().unwrap()), [(0, 8)]);
}

#[test]
fn a_writer_that_waited_for_a_table_that_is_deleted_says_so() {
    let room = Room::with(&[7]);
    let holder = room.lock();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| TableWriter::lock(&room.folder, &room.name));
        fs::remove_file(room.path()).unwrap();
        drop(holder);
        let error = waiting.join().unwrap().unwrap_err().to_string();
        assert!(error.contains("there is no such table"), "{error}");
    });
}

#[test]
fn no_change_of_concurrent_writers_is_lost() {
    let room = Room::new();
    let config = Config { targets: 80, ..small() };
    room.init(config, Existing::Refuse).unwrap();
    thread::scope(|scope| {
        for first in [100, 200, 300, 400] {
            let room = &room;
            scope.spawn(move || (first..first + 20).for_each(|mark| drop(room.activate(&[mark]))));
        }
    });
    let last = room.open().snapshot().unwrap();
    assert_eq!(last.targets.iter().count(), 80);
    assert_eq!(last.generation, Generation(1 + 80));
}

#[test]
fn a_lock_is_not_waited_for_beyond_patience_and_goes_with_its_holder() {
    let room = Room::with(&[7]);
    let holder = room.lock();
    let try_now = || lock_named(&room.path(), Duration::ZERO);
    assert_eq!(try_now().unwrap_err().kind(), ErrorKind::WouldBlock);
    // Readers do not care.
    assert_eq!(marks(&room.open().snapshot().unwrap()), [(0, 7)]);
    drop(holder);
    assert!(try_now().unwrap().is_some());
}

// ---- list

#[test]
fn tables_are_listed_and_foreign_files_are_not() {
    let room = Room::new();
    for table in ["b", "a", "damaged", "older", "short"] {
        init(&room.folder, &name(table), small(), Existing::Refuse).unwrap();
    }
    let good = fs::read(room.dir.path().join("a")).unwrap();
    let mut damaged = good.clone();
    damaged[9 * 8] ^= 1;
    room.write("damaged", &damaged);
    let mut older = good.clone();
    older[8..16].copy_from_slice(&(LAYOUT_VERSION + 1).to_ne_bytes());
    room.write("older", &older);
    let one_buffer = HEADER_LEN + BodyWords::of(&small()).buffer * 4;
    room.write("short", &good[..one_buffer]);

    room.write("text", "not a table");
    room.write("empty", "");
    room.write(".hidden", &good);
    room.write("a.stats", &good);
    room.write("with space", &good);
    fs::create_dir(room.dir.path().join("folder")).unwrap();
    symlink("/nowhere", room.dir.path().join("dangling")).unwrap();
    room.fifo("fifo");

    let folder = room.folder.clone();
    let listed = in_time(move || list(&folder)).unwrap();
    assert_eq!(listed, ["a", "b", "damaged", "older", "short"].map(name), "in order");
}

#[test]
fn a_folder_that_is_not_there_is_named() {
    let error = list(&Folder::new("/nowhere/at/all")).unwrap_err();
    assert!(
        error.to_string().starts_with("list tables in /nowhere/at/all: No such file"),
        "{error}"
    );
}

#[test]
fn whatever_has_the_name_opening_it_ends() {
    let room = Room::new();
    room.fifo("t");
    let (folder, table) = (room.folder.clone(), room.name.clone());
    let (opened, locked, made) = in_time(move || {
        (
            MappedTable::open(&folder, &table).unwrap_err().to_string(),
            TableWriter::lock(&folder, &table).unwrap_err().to_string(),
            init(&folder, &table, small(), Existing::Drop).unwrap_err().to_string(),
        )
    });
    assert_eq!(opened, "open table t: not a Markway table");
    assert_eq!(locked, "change table t: not a Markway table");
    assert_eq!(made, "init table t: not a Markway table");
}

#[test]
fn a_link_is_not_followed() {
    for target in ["/nowhere", "real"] {
        let room = Room::new();
        init(&room.folder, &name("real"), small(), Existing::Refuse).unwrap();
        symlink(target, room.path()).unwrap();
        let (folder, table) = (room.folder.clone(), room.name.clone());
        let made = in_time(move || init(&folder, &table, small(), Existing::Drop));
        assert!(made.unwrap_err().to_string().contains("symbolic link"));
        assert!(MappedTable::open(&room.folder, &room.name).is_err());
        assert_eq!(list(&room.folder).unwrap(), [name("real")]);
    }
}
