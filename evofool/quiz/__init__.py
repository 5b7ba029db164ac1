"""What people see in images: quizzes, their answers, and the verdicts that follow. docs/quiz.md has the protocol."""
