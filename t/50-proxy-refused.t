#!/usr/bin/perl
# Guards: when B's side refuses, is slow, or is not there, A is told which step failed and why, and the token is gone.
use strict;
use warnings;
use HyperTest;
use ProxyTest;
use Test::More;
use Time::HiRes qw(time);

my $p = proxy(workers => 1, token_timeout => 2);
close $_ for $p->pair;
$p->note_fds;

sub is_gone {
	my ($told, $what) = @_;
	isnt((read_to_end($p->come($told->token)))[1], 'timeout', "$what: the token is unknown");
	return;
}

# B's side answers with an error: its code, message and data stay
for my $case (
	[ { code => -32005, message => 'no standing connection' }, -32005, qr/^no standing connection$/, { reason => 'not_connected', step => 'told' } ],
	[ { code => -32005, message => 'P could not reach hd-2: gone', data => { reason => 'not_connected', step => 'confirmed', x => 1 } }, -32005, qr/^P could not reach hd-2: gone$/, { reason => 'not_connected', step => 'confirmed', x => 1 } ],
	[ { code => 403, message => 'Permission denied', data => undef }, 403, qr/^Permission denied$/, { reason => 'denied', step => 'told' } ],
	[ { code => 7, message => 'we are closed', data => { opening => 9 } }, 7, qr/^we are closed$/, { reason => 'refused', step => 'told', opening => 9 } ],
	[ { code => -100, message => 'text', data => 'a string' }, -100, qr/^text$/, 'a string' ],
) {
	my ($error, $code, $message, $data) = @$case;
	my $ask = $p->ask;
	my $told = $p->told;
	my $parked = $p->come($told->token);
	$p->wait_parked($told->{id});
	$told->answer({ error => $error });
	my $r = $ask->answer;
	is($r->{error}{code}, $code, "code $code is passed on") or diag(json_text($r));
	like($r->{error}{message}, $message, "code $code: the message is passed on");
	if (ref $data) {
		$data = { %$data, session => $told->{id} };
		like($r->{error}{data}{help}, qr/\w+ \w+/, "code $code: help says what to do");
		delete $r->{error}{data}{help};
	}
	is_deeply($r->{error}{data}, $data, "code $code: data is kept and has reason, step and session");
	isnt((read_to_end($parked))[1], 'timeout', "code $code: who was parked is let go");
	isnt($p->unpaired($told->{id}), undef, "code $code: the session has its end");
	is_gone($told, "code $code");
}

# Whoever asks may do so often while B is away: that fills no log
{
	my ($began, $before) = (time, $p->{d}->count_log(qr/ warn not_confirmed /));
	for (1 .. 40) {
		my $ask = $p->ask;
		$p->told->answer({ error => { code => -32005, message => 'no standing connection' } });
		$ask->answer;
	}
	cmp_ok($p->{d}->count_log(qr/ warn not_confirmed /) - $before, '<=', 2 + time - $began, 'B is away for 40 calls: a line each second');
}

# Answers that are none
for my $junk ('', 'hello', '[]', '{"jsonrpc":"2.0"}', '{"result":{},"error":{"code":0,"message":"x"}}') {
	my $ask = $p->ask;
	my $told = $p->told;
	$told->answer($junk);
	my $r = $ask->answer;
	ok($r->{error} || ref $r->{result}, "an answer `$junk` of B's side is answered to A") or diag(json_text($r));
	like($r->{error}{message}, qr/hd-2/, "`$junk`: the message names B") if $r->{error};
}

# B's side never answers: A hears of it when the token's time is over, counted from its creation
my $began = time;
my $ask = $p->ask;
my $told = $p->told;
my $parked = $p->come($told->token);
$p->wait_parked($told->{id});
my $r = $ask->answer;
my $took = time - $began;
is($r->{error}{code}, -32003, 'no answer in time: -32003');
like($r->{error}{message}, qr/could not reach hd-2/, 'the message names the step');
is($r->{error}{data}{reason}, 'deadline', 'reason deadline');
ok($took < 3.2 * slow_factor(), 'within the life of the token') or diag($took);
isnt((read_to_end($parked))[1], 'timeout', 'who was parked is let go');
is_gone($told, 'after the deadline');
close $told->{sock};

# Nobody comes
my ($token, $session) = $p->broker;
is($p->unpaired($session, 5), 'expired', 'a token that nobody used expires');
isnt((read_to_end($p->come($token)))[1], 'timeout', 'and is unknown then');
# One comes
($token, $session) = $p->broker;
my $alone = $p->come($token);
is((read_to_end($alone, 5))[1], 'eof', 'who waits in vain is let go');
is($p->unpaired($session), 'expired', 'with its reason');

# A token's life is counted from its creation, whatever happens meanwhile: an answer, a party, both, all of them late.
my $life = 2000 * slow_factor();
for my $case ([ 'answered late', 1.2 ], [ 'one party, late', 0.01, 1.2 ], [ 'answered, then one party', 0.6, 1.2 ], [ 'one party, then the answer', 1.2, 0.6 ]) {
	my ($name, $answer_at, $come_at) = ($case->[0], map { $_ * slow_factor() } @$case[ 1 .. $#$case ]);
	my $began = time;
	my $after = sub { my ($s) = @_; wait_until { time >= $began + $s } 5; return 1 };
	my $ask = $p->ask;
	my $told = $p->told;
	my $s;
	my @steps = ([ $answer_at, sub { $told->answer } ], $come_at ? [ $come_at, sub { $s = $p->come($told->token) } ] : ());
	$after->($_->[0]) and $_->[1]->() for sort { $a->[0] <=> $b->[0] } @steps;
	is($p->unpaired($told->{id}, 5), 'expired', "$name: expires");
	my ($ms) = $p->log_text =~ / unpaired session=$told->{id} .* ms=([\d.]+)/;
	cmp_ok(abs($ms - $life), '<', 0.3 * $life, "$name: after its life") or diag($ms);
	is((read_to_end($s))[1], 'eof', "$name: the party is let go") if $s;
	is_gone($told, $name);
}

# The hyper is not there
close $p->{hyper};
$r = $p->ask->answer;
is($r->{error}{code}, -32603, 'hyper not there: -32603');
is($r->{error}{data}{reason}, 'unreachable', 'reason unreachable');
is($r->{error}{data}{step}, 'told', 'and the step');
like($r->{error}{message}, qr/public-proxy-1\.ga could not reach hd-2: .*localhost/, 'the message names who and where') or diag(json_text($r));

$p->fds_are_back('all failures');
$p->token_is_secret($token, 'failing');
is($p->{d}->count_log(qr/ info asked /), $p->{d}->count_log(qr/proxy\[\d+\] info (?:unpaired|ended) /), 'each session has one end');
is($p->{d}->stop, 0, 'it stops cleanly');
hyper_done();
