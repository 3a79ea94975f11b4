use twcheck::judge::forecast::*;
#[test]
fn dbg() {
    let text = std::fs::read_to_string("/tmp/dbg.txt").unwrap();
    for line in text.lines() {
        let mut c: Vec<u16> = line.split_whitespace().map(|x| x.parse().unwrap()).collect();
        c.resize(60, 0);
        c.reverse();
        let h = History::new(&c, std::time::Duration::from_secs(60));
        let course = Course::of(&h);
        println!("{:?}\n   {:?}", course.pace(), course);
    }
}
