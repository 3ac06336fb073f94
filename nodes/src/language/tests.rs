use super::*;
#[test]
fn smoke() {
    let a = Analyzer::new(Language::parse("zh").unwrap());
    println!("{:?}", a.terms("保修期是多久？iPhone手机 ๆ การรับประกัน"));
}
