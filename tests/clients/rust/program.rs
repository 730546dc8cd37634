include!(env!("PROGRAM"));
