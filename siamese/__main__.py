from siamese.cli import main

raise SystemExit(main())
