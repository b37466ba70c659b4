#!/usr/bin/perl
# Guards: why a brokering died is told apart for ten causes, with one reason, step, cause and advice in A's JSON-RPC error, the log, the metrics and `proxy explain` by session and by operator.
use strict;
use warnings;
use HyperTest;
use ProxyTest;
use Test::More;

my $socket = tmp() . '/admin.sock';
my $p = proxy(workers => 1, token_timeout => 2.5, drain_timeout => '60.0', more => 'table_slots = 3; max_tokens_per_operator = 2;',
	outer => qq(metrics = { bind_address = "localhost:0"; };\nadmin_socket = "$socket";\n));
my $base = 'http://127.0.0.1:' . $p->{d}->ready('metrics_port');

sub metric { my ($result) = @_; return (`curl -sS --noproxy '*' --max-time 20 $base/metrics` =~ /^hyper_brokerings_total\{result="$result"\} (\d+)$/m)[0] }
sub verb { return $p->verb(@_) }
sub stories { my ($exit, $out, $err) = verb('explain', $_[0], '--json'); return $exit == 0 ? json_value($out)->{stories} : (diag($err), []) }
sub ask { my ($from, $to) = @_; return $p->ask(params => { to => $to, channel => 'grpc_server', _client => client($from) }) }

# B's side says no with this
sub says_no {
	my ($error) = @_;
	return sub {
		my ($from, $to) = @_;
		my $ask = ask($from, $to);
		$p->told->answer({ error => $error });
		return $ask->answer->{error};
	};
}
# Tokens that wait while the code runs: n of each of these
sub with_tokens {
	my ($code, @from) = @_;
	return sub {
		my @asks = map { ask($_, 'hd-waits') } @from;
		my @tolds = map { $p->told } @from;
		my $r = $code->(@_);
		$_->answer({ error => { code => 1, message => 'enough' } }) for @tolds;
		$_->answer for @asks;
		return $r;
	};
}
sub error_of { my ($from, $to) = @_; return ask($from, $to)->answer->{error} }

# [ name, operator B, what happens => A's error, code, reason, step, stage, why, what to do ]
my @cases = (
	[ 'B unknown', 'hd-nobody', says_no({ code => 1, message => "error retrieving directory entry for recipient 'hd-nobody': no directory entry found", data => { reason => 'unknown_operator' } }),
		1, 'unknown_operator', 'told', 'not paired', qr/recipient 'hd-nobody': no directory entry found/, qr/spelling/ ],
	[ 'B not permitted', 'hd-denies', says_no({ code => 403, message => "Permission denied for method '_connectionRequest' and client 'public-proxy-1.ga'", data => undef }),
		403, 'denied', 'told', 'not paired', qr/Permission denied/, qr/permit/ ],
	[ 'B not connected', 'hd-away', says_no({ code => -32005, message => 'hd-away has no standing connection to public-proxy-1.ga', data => { reason => 'not_connected', step => 'told' } }),
		-32005, 'not_connected', 'told', 'not paired', qr/no standing connection/, qr/is the target's server running/ ],
	[ 'B refused', 'hd-refuses', says_no({ code => -32006, message => 'not today', data => undef }),
		-32006, 'refused', 'told', 'not paired', qr/^not today$/, qr/log of the target/ ],
	[ 'B too late', 'hd-late', sub { my $ask = ask(@_); my $told = $p->told; my $e = $ask->answer->{error}; close $told->{sock}; return $e },
		-32003, 'deadline', 'told', 'not paired', qr/could not reach hd-late: .*no answer (?:in time|within the token's life)/, qr/target's server/ ],
	[ 'B confirms and does not come', 'hd-absent', sub { my $ask = ask(@_); $p->told->answer; my $r = $ask->answer->{result}; $p->unpaired($r->{session}, 15); return { session => $r->{session} } },
		undef, 'expired', 'parked', 'not paired', qr/^B too late/, qr/internal_endpoint/ ],
	[ 'A too late', 'hd-waits-long', sub {
			my $ask = ask(@_);
			my $told = $p->told;
			my $b = $p->come($told->token);
			$p->wait_parked($told->{id});
			$told->answer;
			my $r = $ask->answer->{result};
			$p->unpaired($r->{session}, 15);
			isnt((read_to_end($p->come($told->token)))[1], 'timeout', 'A too late: it is closed');
			return { session => $r->{session} };
		}, undef, 'expired', 'paired', 'not paired', qr/^A too late/, qr/internal_endpoint/ ],
	[ 'token table full', 'hd-full', with_tokens(\&error_of, 'hd-5', 'hd-5', 'hd-6'), -32001, 'busy', 'issued', 'refused', qr/no room for another token.*public\.table_slots/, qr/later/ ],
	[ 'quota', 'hd-much', with_tokens(\&error_of, 'hd-1', 'hd-1'), -32002, 'quota', 'issued', 'refused', qr/limit of 2 tokens.*public\.max_tokens_per_operator/, qr/setting raised/ ],
	[ 'draining', 'hd-drained', sub { is((verb('drain'))[0], 0, 'drained'); my $e = error_of(@_); is((verb('undrain'))[0], 0, 'and back'); return $e },
		-32004, 'draining', 'asked', 'refused', qr/public-proxy-1\.ga is shutting down/, qr/another proxy/ ],
	[ 'directory stale', 'hd-stale', says_no({ code => -32007, message => 'hd-stale: the directory could not be fetched and what is kept is too old: is sd running?', data => { reason => 'stale' } }),
		-32007, 'stale', 'told', 'not paired', qr/hd-stale: the directory could not be fetched/, qr/is sd running/ ],
);

my %seen;
for my $case (@cases) {
	my ($name, $to, $code, $number, $reason, $step, $stage, $why, $help) = @$case;
	my $before = metric($reason);
	my $e = $code->('hd-1', $to);
	my $session = $e->{session} // $e->{data}{session} // 'none';
	like($session, qr/^[0-9a-f]{12}$/, "$name: A knows the session") or diag(json_text($e));
	if (defined $number) {
		is($e->{code}, $number, "$name: A's code") or diag(json_text($e));
		is("$e->{data}{reason} $e->{data}{step}", "$reason $step", "$name: A's reason and step");
		like($e->{message}, $why, "$name: A's text says why");
		like($e->{data}{help}, $help, "$name: and what to do");
	}
	is(metric($reason), $before + 1, "$name: counted as $reason, once");
	my @lines = $p->log_text =~ / (?:unpaired|not_issued) session=$session (.*)/g;
	is(scalar @lines, 1, "$name: one end in the log");
	like($lines[0] // '', qr/from=hd-1 to=$to .*reason=$reason\b/, "$name: with the same word");
	for my $by ($session, $to) {
		my ($story, @more) = @{ stories($by) };
		is(scalar @more, 0, "$name: explain $by tells of this one");
		is("$story->{session} $story->{from} $story->{to}", "$session hd-1 $to", "$name: explain $by: who");
		is("$story->{stage}: $story->{reason} at $story->{step}", "$stage: $reason at $step", "$name: explain $by: what");
		like($story->{why}, $why, "$name: explain $by: why");
		like($story->{help}, $help, "$name: explain $by: what to do");
		is($story->{why}, $e->{message}, "$name: explain $by: what A was told") if defined $number;
		my ($exit, $out) = verb('explain', $by);
		like($out, qr/^session $session  hd-1 -> \Q$to\E  began /m, "$name: explain $by as text: who");
		like($out, qr/^  \Q$stage: $reason, at step $step\E$/m, "$name: explain $by as text: what");
		like($out, qr/^    why: \Q$story->{why}\E\n    do:  \Q$story->{help}\E$/m, "$name: explain $by as text: why and what to do");
	}
	push @{ $seen{"$reason $step"} }, $name;
}
is_deeply([ grep { @$_ > 1 } values %seen ], [], 'no two of them look the same');

# While it is under way, and of whom nothing is known
my $ask = ask('hd-1', 'hd-slow');
my $told = $p->told;
is_deeply([ map { "$_->{stage}: next $_->{step}" } @{ stories('hd-slow') } ], ['under way: next parked'], 'under way: the step that comes next');
$told->answer;
$ask->answer;
my ($exit, undef, $err) = verb('explain', 'hd-never-heard');
is($exit, 1, 'an operator that nobody asked for: 1');
like($err, qr/nothing of hd-never-heard among the last \d+ brokerings/, 'and why');

# The newest of an operator comes first
my @of_a = @{ stories('hd-1') };
is($of_a[0]{to}, 'hd-slow', 'by the asker: the newest first');
cmp_ok(scalar @of_a, '>', 10, 'and all of them');

$p->{d}->signal('QUIT');
$p->{d}->wait_exit(10);
hyper_done();
