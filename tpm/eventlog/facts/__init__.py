"""What may be believed of a log? One question a module; each fact carries the events it rests on."""
