// Runs every test/**/*.test.ts (or those whose path matches the arguments) in one process and ends with the line "N passed, N failed".
