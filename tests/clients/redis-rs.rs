// Names of any bytes there and back, codes of errors, a map, nil. test_clients.py says what it must print.
use redis::{RedisResult, Value, aio::MultiplexedConnection, cmd};

#[tokio::main(flavor = "current_thread")]
async fn main() -> RedisResult<()> {
    let client = redis::Client::open("redis://127.0.0.1:6379/?protocol=resp3")?;
    let mut c: MultiplexedConnection = client.get_multiplexed_async_connection().await?;
    let mut add = cmd("LB.ADD");
    add.arg("odd")
        .arg("two words")
        .arg(1)
        .arg(b"\0\xff\r\n")
        .arg(1)
        .arg("\"\\")
        .arg(1);
    add.exec_async(&mut c).await?;
    let names: Vec<Vec<u8>> = cmd("LB.PICK")
        .arg(&["odd", "COUNT", "3"])
        .query_async(&mut c)
        .await?;
    for name in names {
        cmd("LB.WEIGHT")
            .arg("odd")
            .arg(name)
            .arg(7)
            .exec_async(&mut c)
            .await?;
    }

    cmd("SET").arg(&["text", "x"]).exec_async(&mut c).await?;
    for command in ["LB.WEIGHT odd x 1", "LB.PICK text", "LB.PICK odd COUNT 0"] {
        let words: Vec<&str> = command.split(' ').collect();
        if let Err(error) = cmd(words[0]).arg(&words[1..]).exec_async(&mut c).await {
            println!("{}", error.code().unwrap_or("no reply"));
        }
    }
    let stats: Value = cmd("LB.STATS").arg("odd").query_async(&mut c).await?;
    println!(
        "{}",
        if matches!(stats, Value::Map(_)) {
            "map"
        } else {
            "list"
        }
    );
    for words in [["LB.PICK", "none"].as_slice(), &["LB.STATS", "odd", "x"]] {
        let nothing: Value = cmd(words[0]).arg(&words[1..]).query_async(&mut c).await?;
        println!("{}", if nothing == Value::Nil { "nil" } else { "?" });
    }
    Ok(())
}
