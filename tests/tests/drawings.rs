//! The drawings in `graphs/drawings` are those of the graphs.

use stepgraph_tests::House;

#[tokio::test]
async fn the_drawings_that_are_checked_in_are_those_of_the_graphs() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::open(folder.path()).await.unwrap();
    for (name, drawn, checked_in) in [
        (
            "widget_chat",
            house.chat.mermaid(),
            include_str!("../../graphs/drawings/widget_chat.mmd"),
        ),
        (
            "document_ingest",
            house.ingest.mermaid(),
            include_str!("../../graphs/drawings/document_ingest.mmd"),
        ),
    ] {
        assert_eq!(
            drawn, checked_in,
            "renew it by `stepgraph graph draw {name} > graphs/drawings/{name}.mmd`"
        );
    }
}
